// Slow: Python loads PyTorch, and each adapter and merged model.
// PEFT and transformers in Python read what we write: adapters and merged checkpoints, with our logits to 1e-4. And what PEFT wrote, read and
// written again by us, has the same bytes and a configuration of the same meaning.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadAdapter, merge, saveAdapter } from "@lowrank/lora";
import { loadModel, saveModel } from "@lowrank/models";
import { type Device, device, fileSource, readSafetensors, tensor } from "@lowrank/tensor";
import { pythonWithPeft } from "test-support";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Case, cases, io, mergesShared, methodCases } from "./golden.js";

const python = pythonWithPeft();
const scratch = realpathSync(mkdtempSync(join(tmpdir(), "lowrank-peft-")));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** PEFT has no type of these names: their files are our own. */
const ownFormats: ReadonlySet<string> = new Set(["BITFIT", "BOTTLENECK", "FULL", "P_TUNING_V2"]);
/** Two parameters on one memory: refused by name (methods/lora.test.ts). */
const refused: ReadonlySet<string> = new Set(["methods/llama-tied-embedding-ensured"]);
const adapters = [...cases, ...methodCases.filter(({ name }) => !refused.has(name))].filter(
  ({ isAdapter, settings }) => isAdapter && !ownFormats.has(settings.method ?? ""),
);

interface Job {
  readonly base: string;
  readonly adapter: string | null;
  readonly ids: readonly (readonly number[])[];
  readonly out: string;
}

/** What a job's logits should be, and how Python's are found. */
interface Expected {
  readonly logits: Float32Array;
  readonly job: Job;
}

let dev: Device;
const expected = new Map<string, Expected>();
const answers = new Map<string, { readonly error?: string }>();

async function prepare(golden: Case): Promise<void> {
  const folder = join(scratch, golden.name.replace("/", "-"));
  mkdirSync(folder);
  const { ids, shape } = await io(golden, async (file) => ({
    ids: Int32Array.from(await file.values("input_ids")),
    shape: file.entries.get("input_ids")?.shape ?? [],
  }));
  const [batch = 0, seq = 0] = shape;
  const rows = Array.from({ length: batch }, (_, row) => [...ids.subarray(row * seq, (row + 1) * seq)]);
  const { model } = await loadModel(golden.modelFolder, { device: dev });
  const adapter = await loadAdapter(model, join(golden.folder, "adapter_final"), { onWarning: () => {} });
  const logits = async (): Promise<Float32Array> =>
    (await model.forward(tensor(ids, { dtype: "i32", shape, device: dev })).data()) as Float32Array;
  await saveAdapter(adapter, join(folder, "adapter"));
  const job = { base: golden.modelFolder, adapter: join(folder, "adapter"), ids: rows, out: join(folder, "adapter.bin") };
  expected.set(`${golden.name} adapter`, { logits: await logits(), job });
  if (/-(pissa|olora)$/.test(golden.name)) {
    await saveAdapter(adapter, join(folder, "plain"), { asPlainLora: true });
    const plain = { ...job, adapter: join(folder, "plain"), out: join(folder, "plain.bin") };
    expected.set(`${golden.name} as plain LoRA`, { logits: await logits(), job: plain });
  }
  if (golden.settings.merge === false || golden.settings.merge_exact === false || mergesShared.has(golden.name)) return;
  merge(adapter);
  await saveModel(model, join(folder, "merged"));
  const merged = { base: join(folder, "merged"), adapter: null, ids: rows, out: join(folder, "merged.bin") };
  expected.set(`${golden.name} merged`, { logits: await logits(), job: merged });
}

describe.skipIf(python === null)("PEFT", () => {
  beforeAll(async () => {
    dev = await device("cpu");
    for (const golden of adapters) await prepare(golden);
    const list = join(scratch, "jobs.json");
    writeFileSync(list, JSON.stringify([...expected.values()].map(({ job }) => job)));
    const script = fileURLToPath(new URL("./interop.py", import.meta.url));
    const lines = execFileSync(python ?? "", [script, list], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], maxBuffer: 2 ** 26 });
    const parsed = lines
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { readonly error?: string });
    for (const [i, name] of [...expected.keys()].entries()) answers.set(name, parsed[i] ?? { error: "Python ended before it" });
  }, 600_000);

  test.each(adapters.map(({ name }) => name))("%s: Python loads it and gives our logits to 1e-4", (name) => {
    const jobs = [...expected].filter(([key]) => key.startsWith(`${name} `));
    expect(jobs.length).toBeGreaterThan(0);
    for (const [key, { logits, job }] of jobs) {
      expect(answers.get(key)?.error, key).toBeUndefined();
      const bytes = readFileSync(job.out);
      const theirs = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
      expect(theirs.length, key).toBe(logits.length);
      let worst = 0;
      for (const [i, value] of logits.entries()) worst = Math.max(worst, Math.abs(value - (theirs[i] ?? Number.NaN)));
      expect(worst, key).toBeLessThan(1e-4);
    }
  });
});

/** A configuration's fields in comparable form: lists of names are sets. */
function meaning(path: string): Readonly<Record<string, unknown>> {
  const fields = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, Array.isArray(value) ? [...value].sort() : value]));
}

test.each(adapters)(
  "$name: read and written again, its tensors have the same bytes and its configuration the same meaning",
  async (golden) => {
    const own = await device("cpu", { threads: 1 });
    const { model } = await loadModel(golden.modelFolder, { device: own });
    const from = join(golden.folder, "adapter_final");
    const to = join(scratch, `again-${golden.name.replace("/", "-")}`);
    await saveAdapter(await loadAdapter(model, from, { onWarning: () => {} }), to);
    const [before, after] = await Promise.all(
      [from, to].map(async (folder) => {
        const file = await readSafetensors(await fileSource(join(folder, "adapter_model.safetensors")));
        const bytes = new Map<string, string>();
        for (const name of [...file.entries.keys()].sort())
          bytes.set(name, Buffer.from(Float32Array.from(await file.values(name)).buffer).toString("base64"));
        await file.close();
        return bytes;
      }),
    );
    expect(after).toEqual(before);
    expect(meaning(join(to, "adapter_config.json"))).toEqual(meaning(join(from, "adapter_config.json")));
    own.dispose();
  },
);
