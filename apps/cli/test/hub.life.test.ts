import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import { sha256, TestHub } from "test-support";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { FetchProgress } from "../src/fetch-progress.js";
import { type Output, processOutput } from "../src/output.js";
import { lowrank, lowrankHere, type Outcome, printed, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train } = await tinyProject(folder);
const files = Object.fromEntries(readdirSync(model).map((name) => [name, readFileSync(join(model, name))]));
const pick = (...names: readonly string[]): Record<string, Buffer> =>
  Object.fromEntries(names.flatMap((name) => (files[name] ? [[name, files[name]]] : [])));
const at = (name: string): string => join(folder, name);
const id = "org/tiny";
let hub: TestHub;
let cache = "";

beforeAll(async () => {
  hub = await TestHub.start();
  hub.push(id, files);
});
afterAll(async () => {
  await hub.stop();
  rmSync(folder, { recursive: true, force: true });
});
beforeEach(() => {
  hub.reset();
  cache = mkdtempSync(at("cache-"));
  vi.stubEnv("HF_ENDPOINT", hub.endpoint);
  vi.stubEnv("HF_HUB_CACHE", cache);
  vi.stubEnv("HF_TOKEN", hub.token);
});
afterEach(() => void vi.unstubAllEnvs());

const training = ["--data", train, "--device", "cpu", "--steps", "2", "--batch-size", "2"];

function expectDone({ code, stdout, stderr }: Outcome): string {
  expect(code, stderr).toBe(0);
  expect(`${stdout}${stderr}`).not.toContain(hub.token);
  return `${stdout}${stderr}`;
}

describe("a name of the hub in place of a folder", () => {
  test("is fetched by the command that wants it, and all others find it", async () => {
    const commit = hub.push(id, files, { branch: "v1" });
    const said = expectDone(await lowrankHere(["train", "--model", id, "--revision", "v1", ...training, "--out", at("run")]));
    expect(said).toMatch(/fetching org\/tiny from the hub: 4 files, 0 B of .* kB here …/);
    expect(said).toMatch(/org\/tiny: .* kB in the cache, after \d+ s/);
    expect(said).toContain("generate --model org/tiny --revision v1 --adapter");
    const config = JSON.parse(readFileSync(at("run/adapter_config.json"), "utf8"));
    expect(config).toMatchObject({ base_model_name_or_path: id, revision: "v1" });
    hub.reset();
    const revised = ["--model", id, "--revision", commit];
    expectDone(await lowrankHere(["eval", ...revised, "--adapter", at("run"), "--data", train, "--rows", "2", "--device", "cpu"]));
    expectDone(
      await lowrankHere(["generate", ...revised, "--adapter", at("run"), "--prompt", "red", "--max-new-tokens", "2", "--device", "cpu"]),
    );
    expectDone(await lowrankHere(["merge", ...revised, "--adapter", at("run"), "--out", at("merged"), "--device", "cpu"]));
    expectDone(await lowrankHere(["inspect", id, "--revision", "v1"]));
    expectDone(await lowrankHere(["plan", ...revised, "--batch", "1", "--seq", "8"]));
    expect(hub.asked).toEqual([]);
    expect(existsSync(at("merged/tokenizer.json"))).toBe(true);
    // A run that is resumed knows its model's revision.
    expectDone(await lowrankHere(["train", "--resume", "--steps", "3", "--out", at("run"), "--allow-changed"]));
    expect(hub.asked).toEqual([]);
  });

  test("org/name:FILE.gguf is a model in every command, and a repository of GGUF files alone says which there are", async () => {
    mkdirSync(at("files"));
    expectDone(await lowrankHere(["export", model, "--format", "gguf", "--type", "q8_0", "--out", at("files/hub.gguf")]));
    hub.push("org/only-gguf", { "sub/tiny-q8_0.gguf": readFileSync(at("files/hub.gguf")), "README.md": Buffer.from("x") });
    hub.push("org/config-and-gguf", { ...pick("config.json", "tokenizer.json"), "sub/tiny.gguf": readFileSync(at("files/hub.gguf")) });
    const named = "org/only-gguf:sub/tiny-q8_0.gguf";
    const [own, local] = [named, at("files/hub.gguf")];
    const text = async (from: string, ...more: readonly string[]): Promise<unknown> => {
      const said = await lowrankHere([
        "generate",
        "--model",
        from,
        "--prompt",
        "red",
        "--max-new-tokens",
        "4",
        "--device",
        "cpu",
        "--json",
        ...more,
      ]);
      expectDone(said);
      return printed<{ ids: unknown }>(said.stdout).ids;
    };
    expect(await text(own)).toEqual(await text(local));
    expectDone(await lowrankHere(["train", "--model", own, ...training, "--out", at("gguf-run")]));
    expect(JSON.parse(readFileSync(at("gguf-run/adapter_config.json"), "utf8"))).toMatchObject({ base_model_name_or_path: named });
    hub.reset();
    expect(await text(own, "--adapter", at("gguf-run"))).toEqual(await text(local, "--adapter", at("gguf-run")));
    expectDone(await lowrankHere(["export", at("gguf-run"), "--format", "gguf", "--out", at("files/run.gguf")]));
    expect(hub.asked).toEqual([]);
    for (const [from, says] of [
      ["org/only-gguf", /It has GGUF files: name one of .*org\/only-gguf:sub\/tiny-q8_0\.gguf/],
      ["org/only-gguf:none.gguf", /none\.gguf/],
      ["org/config-and-gguf", /no model\.safetensors.* name one of org\/config-and-gguf:sub\/tiny\.gguf/],
    ] as const) {
      const { code, stderr } = await lowrankHere(["generate", "--model", from, "--prompt", "a", "--device", "cpu"]);
      expect([code, stderr]).toEqual([2, expect.stringMatching(says)]);
    }
  });

  test("plan fetches the config alone", async () => {
    expectDone(await lowrankHere(["plan", "--model", id, "--batch", "1", "--seq", "8"]));
    expect(hub.asked.flatMap(({ file }) => file ?? [])).toEqual(["config.json"]);
  });

  test("plan looks into GGUF files and quantized weights where they lie, and fetches none of them", async () => {
    const golden = new URL("../../../packages/models/test/checkpoint/quantised/nf4-bias-sharded.json", import.meta.url);
    const { config, files: packed } = JSON.parse(readFileSync(golden, "utf8")) as {
      config: unknown;
      files: Readonly<Record<string, string>>;
    };
    const contents = Object.entries(packed).map(([name, text]) => [name, gunzipSync(Buffer.from(text, "base64"))] as const);
    hub.push("org/nf4", Object.fromEntries([...contents, ["config.json", Buffer.from(JSON.stringify(config))]]));
    expectDone(await lowrankHere(["export", model, "--format", "gguf", "--type", "q8_0", "--out", at("gguf")]));
    const [name = ""] = readdirSync(at("gguf")).filter((file) => file.endsWith(".gguf"));
    hub.push("org/gguf", { [`sub/${name}`]: readFileSync(at(`gguf/${name}`)) });
    const planned = async (path: string): Promise<unknown> => {
      const { code, stdout, stderr } = await lowrankHere(["plan", "--model", path, "--batch", "1", "--seq", "8", "--json"]);
      expect(code, stderr).toBe(0);
      return printed<{ weightBytes: unknown; peakBytes: number }>(stdout).weightBytes;
    };
    const local = at("nf4");
    mkdirSync(local);
    for (const [file, content] of contents) writeFileSync(join(local, file), content);
    writeFileSync(join(local, "config.json"), JSON.stringify(config));
    expect(await planned("org/nf4")).toEqual(await planned(local));
    expect(await planned(`org/gguf:sub/${name}`)).toEqual(await planned(at(`gguf/${name}`)));
    const whole = hub.asked.filter(({ file, headers }) => /\.(safetensors|gguf)$/.test(file ?? "") && headers.range === undefined);
    expect(whole).toEqual([]);
    expect(readdirSync(cache, { recursive: true }).filter((file) => /\.(safetensors|gguf)$/.test(String(file)))).toEqual([]);
    const alone = await lowrankHere(["plan", "--model", join(local, "config.json")]);
    expect([alone.code, alone.stderr]).toEqual([
      2,
      expect.stringMatching(/weights are quantized by bitsandbytes; .* Give the model's folder/),
    ]);
  });

  test("an adapter by its name", async () => {
    expectDone(await lowrankHere(["train", "--model", model, ...training, "--out", at("mine")]));
    hub.push(
      "user/adapter",
      Object.fromEntries(["adapter_config.json", "adapter_model.safetensors"].map((name) => [name, readFileSync(at(`mine/${name}`))])),
    );
    const ask = ["generate", "--model", model, "--prompt", "red", "--max-new-tokens", "4", "--device", "cpu", "--json"];
    const [here, there] = [await lowrankHere([...ask, "--adapter", at("mine")]), await lowrankHere([...ask, "--adapter", "user/adapter"])];
    expectDone(there);
    expect(there.stdout).toBe(here.stdout);
    expectDone(await lowrankHere(["inspect", "user/adapter"]));
    expectDone(await lowrankHere(["resize", "user/adapter", "--rank", "2", "--out", at("resized")]));
    expectDone(await lowrankHere(["combine", "user/adapter", at("mine"), "--method", "cat", "--out", at("both")]));
  });

  test("what is not there, and what is of another kind, is told in a line with exit code 2", async () => {
    const { code, stderr } = await lowrankHere(["train", "--model", "org/none", ...training, "--out", at("none")]);
    expect([code, stderr.trim().split("\n").at(-1)]).toEqual([
      2,
      expect.stringMatching(
        /^error: org\/none: it is no folder, and the hub has no model of that name at .*\. Check the path or the id\.$/,
      ),
    ]);
    expect(existsSync(at("none"))).toBe(false);
    const here = await lowrankHere(["inspect", model, "--revision", "v1"]);
    expect([here.code, here.stderr]).toEqual([2, expect.stringMatching(/--revision is for models of the hub, and .* is here/)]);
    const adapter = await lowrankHere(["eval", "--model", model, "--adapter", id, "--data", train, "--device", "cpu"]);
    expect([adapter.code, adapter.stderr]).toEqual([2, expect.stringMatching(/It is a model: give it as --model/)]);
  });
});

describe("lowrank models", () => {
  test("lists what is cached: family, size, dtype, whether it fits, what lacks; and removes it", async () => {
    hub.push("user/adapter", {
      "adapter_config.json": '{"peft_type": "LORA"}',
      "adapter_model.safetensors": files["model.safetensors"] ?? "",
    });
    expect(expectDone(await lowrankHere(["models"]))).toMatch(/The hub's cache holds no model/);
    expectDone(await lowrankHere(["plan", "--model", id, "--batch", "1", "--seq", "8"]));
    expect(expectDone(await lowrankHere(["models"]))).toMatch(/org\/tiny +llama +\d+ B +in part +main/);
    expectDone(await lowrankHere(["inspect", id]));
    expectDone(await lowrankHere(["inspect", "user/adapter"]));
    hub.push("org/other", { "config.json": '{"model_type": "t5"}', "model.safetensors": files["model.safetensors"] ?? "" });
    expectDone(await lowrankHere(["inspect", "org/other"]));
    expect(expectDone(await lowrankHere(["models"]))).toMatch(/org\/other +t5 .* not read +main/);
    expectDone(await lowrankHere(["models", "rm", "org/other"]));
    const { stdout } = await lowrankHere(["models", "--json"]);
    const bytes = Object.values(files).reduce((sum, { length }) => sum + length, 0);
    expect(JSON.parse(stdout)).toMatchObject({
      models: [
        { id, kind: "model", family: "llama", dtype: "F32", fits: true, missing: [], revisions: ["main"], sizeBytes: bytes + 40 },
        { id: "user/adapter", kind: "adapter", family: "LORA", fits: null },
      ],
    });
    expect(expectDone(await lowrankHere(["models"]))).toMatch(/org\/tiny +llama +[\d.]+ kB +F32 +fits +main\n/);
    expect(expectDone(await lowrankHere(["models", "rm", id]))).toMatch(/org\/tiny removed from the cache: [\d.]+ kB free/);
    expect(readdirSync(cache).filter((name) => name.includes("tiny"))).toEqual([]);
    expect(readdirSync(join(cache, ".locks"))).toEqual(["models--user--adapter"]);
    const again = await lowrankHere(["models", "rm", id]);
    expect([again.code, again.stderr]).toEqual([2, expect.stringMatching(/the cache .* does not have it/)]);
    for (const args of [["rm"], ["prune"], ["rm", "../../x"]]) expect((await lowrankHere(["models", ...args])).code).toBe(2);
  });
});

describe("a bar on a terminal", () => {
  const progress = (doneBytes: number, secondsLeft: number | null) => ({
    id,
    doneBytes,
    totalBytes: 4e9,
    bytesPerSecond: 12.3e6,
    secondsLeft,
    fileCount: 3,
  });
  test.each([
    [79, progress(1e9, 244), "org/tiny █████░░░░░░░░░░░░░░░  1.0 GB of 4.0 GB  12.3 MB/s  4 min 04 s left"],
    [60, progress(1e9, 244), "org/tiny 1.0 GB of 4.0 GB  12.3 MB/s  4 min 04 s left"],
    [79, { ...progress(0, null), bytesPerSecond: 0 }, "org/tiny ░░░░░░░░░░░░░░░░░░░░  0 B of 4.0 GB"],
    [79, progress(4e9, 0), "org/tiny ████████████████████  4.0 GB of 4.0 GB  12.3 MB/s"],
  ])("of %d columns shows what is there, how fast it comes, and the time left", (columns, step, line) => {
    const drawn: string[] = [];
    const output: Output = { ...processOutput(false), isTerminal: true, columns, draw: (text) => void drawn.push(text) };
    new FetchProgress(output).step(step);
    expect(drawn).toEqual([line]);
  });
});

describe("processes", () => {
  const env = (): NodeJS.ProcessEnv => ({ HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cache, HF_TOKEN: hub.token });

  test("two at once fetch a model once", async () => {
    const results = await Promise.all([1, 2].map(() => lowrank(["inspect", id, "--headers"], { env: env() })));
    for (const result of results) expectDone(result);
    expect(hub.asked.filter(({ at, file }) => at === "store" && file === "model.safetensors").length).toBe(1);
  });

  test.skipIf(process.platform === "win32")("one without room for a file says so with exit code 2, and leaves nothing of it", async () => {
    const limited = `ulimit -f 40; exec "${process.execPath}" "${fileURLToPath(new URL("../bin/lowrank.js", import.meta.url))}" inspect ${id}`;
    const { error } = await promisify(execFile)("bash", ["-c", limited], { env: { ...process.env, ...env() } }).then(
      () => ({ error: null }),
      (error: unknown) => ({ error: error as { readonly code: number; readonly stderr: string } }),
    );
    expect([error?.code, error?.stderr]).toEqual([2, expect.stringMatching(/org\/tiny: model\.safetensors cannot be written \(EFBIG\)/)]);
    expect(readdirSync(join(cache, "models--org--tiny", "blobs")).filter((name) => name.startsWith("."))).toEqual([]);
  });

  test("one that is interrupted while it fetches says so, leaves no run, and what came is continued after a kill too", async () => {
    /** Half of the weights, and then nothing. */
    const half = (): void =>
      hub.failWith(({ at, file }, response, content) => {
        if (at !== "store" || file !== "model.safetensors" || !content) return false;
        response.writeHead(200, { etag: '"x"', "content-length": content.length }).write(content.subarray(0, content.length / 2));
        return true;
      });
    const command = ["train", "--model", id, ...training, "--out", at("stopped")];
    half();
    const stopped = await lowrank(command, { env: env(), interruptAt: "fetching org/tiny" });
    expect([stopped.code, stopped.stderr]).toEqual([
      130,
      expect.stringMatching(/Stopped while org\/tiny was fetched; what came of it is kept/),
    ]);
    expect(existsSync(at("stopped"))).toBe(false);
    rmSync(join(cache, "models--org--tiny"), { recursive: true, force: true });
    half();
    const blobs = join(cache, "models--org--tiny", "blobs");
    const weights = `.${sha256(files["model.safetensors"] ?? new Uint8Array())}.`;
    const hasPart = (): boolean =>
      existsSync(blobs) &&
      readdirSync(blobs).some(
        (name) => name.startsWith(weights) && (statSync(join(blobs, name), { throwIfNoEntry: false })?.size ?? 0) > 0,
      );
    const killed = await lowrank(command, { env: env(), killWhen: hasPart });
    expect(killed.code).toBe(null);
    hub.reset();
    hub.failWith(({ at, file, headers }, response, content) => {
      if (at !== "store" || file !== "model.safetensors" || !content) return false;
      hub.send({ headers, method: "GET" }, response, content, { etag: '"x"' });
      return true;
    });
    expectDone(await lowrank(["inspect", id, "--headers"], { env: env() }));
    expect(hub.asked.find(({ at, file }) => at === "store" && file === "model.safetensors")?.headers.range).toMatch(/^bytes=\d+-$/);
    expect(readdirSync(blobs).filter((name) => !/^[0-9a-f]+$/.test(name))).toEqual([]);
  });
});

test("data sets of the hub are previewed, split and trained on by their names, with weights", async () => {
  const parquet = readFileSync(fileURLToPath(new URL("../../../test/data-files/completion.parquet", import.meta.url)));
  hub.push("datasets/org/rows", { "default/train/0000.parquet": parquet }, { branch: "refs/convert/parquet" });
  hub.push("datasets/org/rows", { "train.jsonl": readFileSync(train) });
  const look = await lowrankHere(["data", "preview", "hub:org/rows", "--model", model, "--max-length", "64", "--json"]);
  expect(look.code, look.stderr).toBe(0);
  expect((JSON.parse(look.stdout) as { files: { path: string }[] }).files[0]?.path).toMatch(/datasets--org--rows.*0000\.parquet$/);
  const run = ["train", "--model", model, "--data", "hub:org/rows@main:0.5", "--data", train, "--out", at("data-run"), "--device", "cpu"];
  const { code, stderr } = await lowrankHere([...run, "--steps", "1", "--batch-size", "2", "--rank", "2"]);
  expect(code, stderr).toBe(0);
  expect(stderr).toContain("each row 0.5 times an epoch");
  const none = await lowrankHere(["data", "convert", "hub:org/none", "--out", at("none.jsonl")]);
  expect(none.code).toBe(2);
  expect(existsSync(at("none.jsonl"))).toBe(false);
});

describe("push", () => {
  test("a run goes to the hub as PEFT's folder with a card, and is what a name then stands for", async () => {
    const run = at("pushed");
    expectDone(await lowrankHere(["train", "--model", id, ...training, "--method", "lora", "--rank", "2", "--out", run]));
    hub.reset();
    const said = expectDone(await lowrankHere(["push", run, "--to", "user/tiny-lora", "--private", "--message", "first"]));
    expect(said).toContain(`Made and written: ${hub.endpoint}/user/tiny-lora`);
    expect(hub.uploads.made).toEqual([{ id: "user/tiny-lora", visibility: "private" }]);
    const { files: sent } = printed<{ files: string[] }>((await lowrankHere(["push", run, "--to", "user/tiny-lora", "--json"])).stdout);
    expect(sent).toEqual(["README.md", "adapter_config.json", "adapter_model.safetensors"]);
    expectDone(
      await lowrankHere([
        "generate",
        "--model",
        id,
        "--adapter",
        "user/tiny-lora",
        "--prompt",
        "a",
        "--max-new-tokens",
        "2",
        "--device",
        "cpu",
      ]),
    );
  });

  test.each<readonly [string, () => string[], RegExp]>([
    ["no folder", () => [at("nothing"), "--to", "user/x"], /there is no such folder/],
    ["a folder without weights", () => [folder, "--to", "user/x"], /holds no weights/],
    ["a name that is none", () => [model, "--to", "x"], /"x" is no name of a repository on the hub/],
    ["no path", () => ["--to", "user/x"], /takes one folder, and got 0/],
  ])("%s ends with 2 and a sentence", async (_, args, says) => {
    const { code, stderr } = await lowrankHere(["push", ...args()]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(says)]);
    expect(hub.uploads.commits).toEqual([]);
  });
});
