// Slow: starts Python a few times.
// Python's huggingface_hub opens without the network what we fetched, and we what it fetched; both at once into one cache do no harm.
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { loadModel, resolveModel } from "@lowrank/models";
import { device, tensor } from "@lowrank/tensor";
import { pythonWith, sharedDir, TestHub } from "test-support";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";

const python = pythonWith("huggingface_hub");
const transformers = pythonWith("torch", "transformers");
const stories = sharedDir("models", "stories260K");
let hub: TestHub;
beforeAll(async () => {
  hub = await TestHub.start();
});
afterAll(() => hub.stop());

const id = "org/shared";
const content = Buffer.alloc(3_000_000, "weights");
const model = { "config.json": "{}", "tokenizer.json": "{}", "model.safetensors": content, "README.md": "read me" };

function temporary(): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "lowrank-hub-")));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** Runs a program whose last line prints JSON. */
async function run(program: string, cache: string, isOffline: boolean): Promise<unknown> {
  const env = {
    ...process.env,
    HF_ENDPOINT: hub.endpoint,
    HF_HUB_CACHE: cache,
    HF_HOME: cache,
    HF_HUB_OFFLINE: isOffline ? "1" : "0",
    HF_HUB_DISABLE_XET: "1",
  };
  const text = `import json, os\nfrom huggingface_hub import *\n${program}`;
  const { stdout } = await promisify(execFile)(python ?? "", ["-c", text], { env });
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
}

async function withoutNetwork<T>(use: () => Promise<T>): Promise<T> {
  vi.stubEnv("HF_HUB_OFFLINE", "1");
  try {
    return await use();
  } finally {
    vi.unstubAllEnvs();
  }
}

describe.skipIf(python === null)("Python's huggingface_hub", () => {
  test("opens offline what we fetched: files, the whole snapshot, what is absent, and nothing that it does not know", async () => {
    hub.push(id, model);
    const cache = temporary();
    const folder = await resolveModel(id, { endpoint: hub.endpoint, cache, token: "" });
    const program = `
names = ["config.json", "tokenizer.json", "model.safetensors"]
paths = [hf_hub_download("${id}", name) for name in names]
absent = try_to_load_from_cache("${id}", "chat_template.jinja") is _CACHED_NO_EXIST
cached = scan_cache_dir()
repo = list(cached.repos)[0]
print(json.dumps({"paths": paths, "absent": absent, "snapshot": snapshot_download("${id}"), "warnings": [str(w) for w in cached.warnings],
  "size": repo.size_on_disk, "refs": list(repo.refs), "files": sorted(f.file_name for r in repo.revisions for f in r.files)}))`;
    expect(await run(program, cache, true)).toEqual({
      paths: ["config.json", "tokenizer.json", "model.safetensors"].map((name) => join(folder, name)),
      absent: true,
      snapshot: folder,
      warnings: [],
      size: content.length + 4,
      refs: ["main"],
      files: ["config.json", "model.safetensors", "tokenizer.json"],
    });
  });

  test("fetches nothing again of what we fetched", async () => {
    hub.push(id, model);
    const cache = temporary();
    await resolveModel(id, { endpoint: hub.endpoint, cache, token: "" });
    hub.reset();
    await run(`print(json.dumps(hf_hub_download("${id}", "model.safetensors")))`, cache, false);
    expect(hub.asked.filter(({ method, at }) => method === "GET" && at === "store")).toEqual([]);
  });

  test("fills a cache that we open offline, its whole snapshot or file by file", async () => {
    const commit = hub.push(id, model);
    for (const program of [
      `print(json.dumps(snapshot_download("${id}")))`,
      `for name in ["config.json", "model.safetensors"]: path = hf_hub_download("${id}", name)\nprint(json.dumps(os.path.dirname(path)))`,
    ]) {
      const cache = temporary();
      const folder = await run(program, cache, false);
      hub.reset();
      expect(await withoutNetwork(() => resolveModel(id, { endpoint: hub.endpoint, cache }))).toBe(folder);
      expect(String(folder)).toContain(commit);
      expect(hub.asked).toEqual([]);
    }
  });

  test("in part, which we complete into the same blobs", async () => {
    hub.push(id, model);
    const cache = temporary();
    await run(`print(json.dumps(hf_hub_download("${id}", "model.safetensors")))`, cache, false);
    await expect(withoutNetwork(() => resolveModel(id, { endpoint: hub.endpoint, cache }))).rejects.toThrow(
      /in part only, without config\.json/,
    );
    hub.reset();
    const folder = await resolveModel(id, { endpoint: hub.endpoint, cache, token: "" });
    expect(hub.asked.filter(({ at }) => at === "store").map(({ file }) => file)).toEqual(["tokenizer.json"]);
    expect(readdirSync(folder).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    for (const name of readdirSync(folder)) expect(existsSync(join(folder, readlinkSync(join(folder, name)))), name).toBe(true);
  });

  test.skipIf(transformers === null || stories === null)(
    "transformers opens by its name, offline, what we fetched: model and tokenizer, with our logits",
    async () => {
      const folder = stories as string; // skipped where it is null
      hub.push("org/stories", Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))])));
      const cache = temporary();
      const dev = await device("cpu", { threads: 1 });
      const { model, tokenizer } = await loadModel("org/stories", { device: dev, hub: { endpoint: hub.endpoint, cache, token: "" } });
      const ids = tokenizer?.encode("Once upon a time") ?? [];
      const ours = [...(await model.forward(tensor([ids], { dtype: "i32", device: dev })).data())];
      const program = `
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
ids = AutoTokenizer.from_pretrained("org/stories")("Once upon a time")["input_ids"]
model = AutoModelForCausalLM.from_pretrained("org/stories", dtype=torch.float32)
print(json.dumps({"ids": ids, "logits": model(torch.tensor([ids])).logits.flatten().tolist()}))`;
      const theirs = (await run(program, cache, true)) as { readonly ids: readonly number[]; readonly logits: readonly number[] };
      expect(theirs.ids).toEqual(ids);
      expect(theirs.logits.length).toBe(ours.length);
      // As for the goldens: both compute in f32, in another order.
      expect(Math.max(0, ...ours.slice(-512).map((value, i) => Math.abs(value - (theirs.logits.at(i - 512) ?? Number.NaN))))).toBeLessThan(
        1e-4,
      );
      dev.dispose();
    },
  );

  test("at the same time into the same cache", async () => {
    hub.push(id, model);
    const cache = temporary();
    const ours = async (): Promise<string> => {
      // Python has started and asks.
      while (!hub.asked.some(({ headers }) => headers["user-agent"]?.includes("hf_hub")))
        await new Promise((resolve) => setTimeout(resolve, 5));
      return resolveModel(id, { endpoint: hub.endpoint, cache, token: "" });
    };
    hub.reset();
    const [theirs, folder] = await Promise.all([run(`print(json.dumps(snapshot_download("${id}")))`, cache, false), ours()]);
    expect(folder).toBe(theirs);
    expect(readFileSync(join(folder, "model.safetensors")).equals(content)).toBe(true);
    expect(readdirSync(join(cache, "models--org--shared", "blobs")).filter((name) => !/^[0-9a-f]+$/.test(name))).toEqual([]);
  });
});
