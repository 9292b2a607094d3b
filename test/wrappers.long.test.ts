// Slow: Python loads PyTorch and each model.
// An adapter on the text model of one that sees as well, loaded by PEFT on the whole model: on the text model alone, with our logits to 1e-4.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { applyAdapter, saveAdapter } from "@lowrank/lora";
import { loadModel } from "@lowrank/models";
import { device, Generator, realizeNow, tensor } from "@lowrank/tensor";
import { pythonWithPeft } from "test-support";
import { afterAll, expect, test } from "vitest";
import { familyCases } from "./family.js";

const python = pythonWithPeft();
const scratch = realpathSync(mkdtempSync(join(tmpdir(), "lowrank-wrappers-")));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const wrappers = familyCases.filter(
  ({ folder }) => "text_config" in JSON.parse(readFileSync(join(folder, "model", "config.json"), "utf8")),
);
const tokens = [[3, 5, 2, 7, 1, 4, 6, 8, 9, 2]];

/** Names that towers have too, alone and beside what narrows them down. */
const choices = {
  "names of layers": { targets: ["q_proj", "v_proj"] },
  "names, without a layer": { targets: ["q_proj", "v_proj"], exclude: ["layers.0.self_attn.v_proj"] },
} as const;

test
  .skipIf(python === null)
  .each(wrappers.flatMap(({ name, folder }) => Object.keys(choices).map((choice) => [name, choice, folder] as const)))(
  "%s: an adapter by %s is loaded by PEFT onto the text model alone, with our logits",
  async (name, choice, folder) => {
    const dev = await device("cpu", { threads: 1 });
    const { model } = await loadModel(join(folder, "model"), { device: dev });
    const adapter = applyAdapter(model, { method: "lora", rank: 2, alpha: 4, ...choices[choice as keyof typeof choices] });
    const random = new Generator(dev, 7);
    for (const [key, parameter] of adapter.namedParameters())
      if (key.includes("lora_B")) parameter.assign(random.normal(parameter.shape, 0, 0.3));
    realizeNow(adapter.parameters());
    const own = join(scratch, `${name}-${choice}`.replaceAll(/[/, ]+/g, "-"));
    await saveAdapter(adapter, own);
    const logits = await model.forward(tensor(tokens, { dtype: "i32", device: dev })).data();
    writeFileSync(`${own}.json`, JSON.stringify([{ base: join(folder, "model"), adapter: own, ids: tokens, out: `${own}.bin` }]));
    const script = fileURLToPath(new URL("./interop.py", import.meta.url));
    const line = execFileSync(python ?? "", [script, `${own}.json`], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
    const answer = JSON.parse(line) as { readonly error?: string; readonly adapted?: readonly string[] };
    expect(answer.error).toBeUndefined();
    const places = [...adapter.places.keys()].map((place) => `base_model.model.${place}`);
    expect([...(answer.adapted ?? [])].sort()).toEqual(places.sort());
    const bytes = readFileSync(`${own}.bin`);
    const theirs = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    let worst = 0;
    for (const [i, value] of logits.entries()) worst = Math.max(worst, Math.abs(value - (theirs[i] ?? Number.NaN)));
    // The families' logits are held to this.
    expect(worst).toBeLessThan(1e-4);
    dev.dispose();
  },
);
