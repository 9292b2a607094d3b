// Slow: Python loads PyTorch, and each model.
// An adapter on the text model of one that sees as well, loaded by PEFT on the whole model: on the text model alone, with our logits to 1e-4.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { applyAdapter, saveAdapter } from "@lowrank/lora";
import { loadModel } from "@lowrank/models";
import { type Device, device, Generator, realizeNow, tensor } from "@lowrank/tensor";
import { pythonWithPeft } from "test-support";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { familyCases } from "./family.js";

const python = pythonWithPeft();
const scratch = realpathSync(mkdtempSync(join(tmpdir(), "lowrank-wrappers-")));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Gemma 3n's tower is a model of another package of Python's (timm). */
const wrappers = familyCases.filter(
  ({ folder, family }) => family !== "gemma3n" && "text_config" in JSON.parse(readFileSync(join(folder, "model", "config.json"), "utf8")),
);
const tokens = [[3, 5, 2, 7, 1, 4, 6, 8, 9, 2]];

/** Names that towers have too, alone and beside what narrows them down. */
const choices = {
  "names of layers": { targets: ["q_proj", "v_proj"] },
  "names, without a layer": { targets: ["q_proj", "v_proj"], exclude: ["layers.0.self_attn.v_proj"] },
} as const;
type Choice = keyof typeof choices;
const cases = wrappers.flatMap(({ name, folder }) =>
  (Object.keys(choices) as Choice[]).map((choice) => ({ name, choice, folder, key: `${name} ${choice}` })),
);

/** What we have of a case, and what Python says of it. */
interface Outcome {
  readonly places: readonly string[];
  readonly logits: ArrayLike<number>;
  readonly job: {
    readonly base: string;
    readonly adapter: string;
    readonly ids: readonly (readonly number[])[];
    readonly out: string;
    readonly sees: true;
  };
  answer?: { readonly error?: string; readonly adapted?: readonly string[] };
}
const outcomes = new Map<string, Outcome>();

async function prepare({ key, choice, folder }: (typeof cases)[number], dev: Device): Promise<Outcome> {
  const base = join(folder, "model");
  const { model } = await loadModel(base, { device: dev });
  const adapter = applyAdapter(model, { method: "lora", rank: 2, alpha: 4, ...choices[choice] });
  const random = new Generator(dev, 7);
  for (const [name, parameter] of adapter.namedParameters())
    if (name.includes("lora_B")) parameter.assign(random.normal(parameter.shape, 0, 0.3));
  realizeNow(adapter.parameters());
  const own = join(scratch, key.replaceAll(/[/, ]+/g, "-"));
  await saveAdapter(adapter, own);
  const logits = await model.forward(tensor(tokens, { dtype: "i32", device: dev })).data();
  const places = [...adapter.places.keys()].map((place) => `base_model.model.${place}`);
  return { places, logits, job: { base, adapter: own, ids: tokens, out: `${own}.bin`, sees: true } };
}

describe.skipIf(python === null)("PEFT on a model that sees as well", () => {
  beforeAll(async () => {
    const dev = await device("cpu", { threads: 1 });
    for (const each of cases) outcomes.set(each.key, await prepare(each, dev));
    dev.dispose();
    const list = join(scratch, "jobs.json");
    writeFileSync(list, JSON.stringify([...outcomes.values()].map(({ job }) => job)));
    const script = fileURLToPath(new URL("./interop.py", import.meta.url));
    const lines = execFileSync(python ?? "", [script, list], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], maxBuffer: 2 ** 26 });
    for (const [i, outcome] of [...outcomes.values()].entries()) outcome.answer = JSON.parse(lines.trim().split("\n")[i] ?? "{}");
  }, 900_000);

  test.each(cases)("$name: an adapter by $choice goes onto the text model alone, with our logits", ({ key }) => {
    const { places, logits, job, answer } = outcomes.get(key) ?? expect.fail(key);
    expect(answer?.error).toBeUndefined();
    expect([...(answer?.adapted ?? [])].sort()).toEqual([...places].sort());
    const bytes = readFileSync(job.out);
    const theirs = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    let worst = 0;
    for (const [i, value] of Array.from(logits).entries()) worst = Math.max(worst, Math.abs(value - (theirs[i] ?? Number.NaN)));
    // The families' logits are held to this.
    expect(worst).toBeLessThan(1e-4);
  });
});
