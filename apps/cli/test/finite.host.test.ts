import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadModel, saveModel } from "@lowrank/models";
import { bytesSource, type DType, device, encode, readHeader } from "@lowrank/tensor";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lowrankHere, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train } = await tinyProject(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let count = 0;
const fresh = (): string => join(folder, `out-${count++}`);
const onCpu = ["--device", "cpu"];
const trainOn = (from: string, out: string, ...extra: readonly string[]): string[] => [
  ...["train", "--model", from, "--data", train, "--out", out, "--rank", "2", "--targets", "q_proj", "--batch-size", "4", "--steps", "2"],
  ...onCpu,
  ...extra,
];

/** A copy of a folder in which some elements of a tensor hold other numbers. */
async function changed(from: string, file: string, tensor: string, elements: Readonly<Record<number, number>>): Promise<string> {
  const copy = fresh();
  cpSync(from, copy, { recursive: true });
  const path = join(copy, file);
  const bytes = readFileSync(path);
  const entry = (await readHeader(bytesSource(bytes))).entries.find(({ name }) => name === tensor);
  if (!entry) throw new Error(`${path} holds no ${tensor}.`);
  const dtype = entry.dtype.toLowerCase() as DType;
  for (const [index, value] of Object.entries(elements)) {
    const one = encode([value], dtype);
    bytes.set(one, entry.offset + Number(index) * one.byteLength);
  }
  writeFileSync(path, bytes);
  return copy;
}

/** The tiny model with its weights in another dtype. */
async function stored(dtype: "f16" | "bf16"): Promise<string> {
  const copy = join(folder, dtype);
  if (existsSync(copy)) return copy;
  const dev = await device("cpu", { threads: 1 });
  await saveModel((await loadModel(model, { device: dev, dtype })).model, copy);
  dev.dispose();
  return copy;
}

const weight = "model.layers.1.mlp.up_proj.weight";
const factor = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
let adapter = "";
beforeAll(async () => {
  adapter = fresh();
  expect((await lowrankHere(trainOn(model, adapter))).code).toBe(0);
});

const commands: readonly (readonly [name: string, args: (model: string, adapter: string, out: string) => readonly string[]])[] = [
  ["eval", (m, a) => ["eval", "--model", m, "--adapter", a, "--data", train, ...onCpu]],
  ["generate", (m, a) => ["generate", "--model", m, "--adapter", a, "--prompt", "red", ...onCpu]],
  ["merge", (m, a, out) => ["merge", "--model", m, "--adapter", a, "--out", out, ...onCpu]],
];

async function refuses(args: readonly string[], words: readonly string[]): Promise<void> {
  const { code, stdout, stderr } = await lowrankHere(args);
  expect(code, `${stdout}${stderr}`).toBe(2);
  for (const word of words) expect(stderr).toContain(word);
}

describe("weights that are not finite end a command when they are read, with tensor and place", () => {
  const damages = [
    ["NaN in f32", () => model, Number.NaN, "NaN"],
    ["an infinity in bf16", () => stored("bf16"), Number.POSITIVE_INFINITY, "Infinity"],
    ["NaN in f16", () => stored("f16"), Number.NaN, "NaN"],
  ] as const;
  for (const [name, source, value, word] of damages) {
    test(name, async () => {
      // Row 3 of 32 columns, and an element behind it that is not named.
      const broken = await changed(await source(), "model.safetensors", weight, { 101: value, 300: value });
      const says = [`"${weight}" is ${word} at [3, 5]`, "model.safetensors"];
      for (const [, args] of commands) {
        const out = fresh();
        await refuses(args(broken, adapter, out), says);
        expect(existsSync(out)).toBe(false);
      }
      await refuses(["inspect", broken], says);
      await refuses(["inspect", join(broken, "model.safetensors"), "--json"], says);
      expect((await lowrankHere(["inspect", broken, "--headers"])).code).toBe(0);
      const out = fresh();
      await refuses(trainOn(broken, out), says);
      expect(existsSync(join(out, "adapter_model.safetensors"))).toBe(false);
    });
  }

  test("of an adapter too", async () => {
    const broken = await changed(adapter, "adapter_model.safetensors", factor, { 33: Number.NEGATIVE_INFINITY });
    const says = [`"${factor}" is -Infinity at [1, 1]`, "adapter_model.safetensors"];
    for (const [, args] of commands) await refuses(args(model, broken, fresh()), says);
    await refuses(["inspect", broken], says);
    await refuses(["combine", broken, adapter, "--out", fresh()], says);
    await refuses(["resize", broken, "--rank", "1", "--out", fresh()], says);
    await refuses(
      [
        "extract",
        "--base",
        model,
        "--tuned",
        await changed(model, "model.safetensors", weight, { 0: Number.NaN }),
        "--rank",
        "1",
        "--out",
        fresh(),
      ],
      [weight],
    );
  });
});

test("finite weights whose loss is not end eval and compare, with exit code 2 and no result", async () => {
  const file = "model.safetensors";
  const all = (value: number) => Object.fromEntries(Array.from({ length: 32 * 64 }, (_, i) => [i, value]));
  const large = await changed(await stored("bf16"), file, "model.layers.0.mlp.up_proj.weight", all(2 ** 60));
  const loud = await changed(large, file, "model.layers.0.mlp.down_proj.weight", all(2 ** 127));
  expect((await lowrankHere(["inspect", loud])).code).toBe(0);
  const measured = await lowrankHere(["eval", "--model", loud, "--data", train, "--json", ...onCpu]);
  expect(measured.code, measured.stderr).toBe(2);
  expect(measured.stdout).toBe("");
  expect(measured.stderr).toMatch(/error: The loss of batch 1 \(lines \d+, .* more\) is (NaN|Infinity): .*Evaluate an earlier checkpoint/);
  const methods = ["--methods", "lora", "--steps", "1", "--out", fresh()];
  await refuses(["compare", "--model", loud, "--data", train, ...methods, ...onCpu], ["The loss of batch 1 (lines"]);
});

describe("what is written is finite, or the command fails and keeps what was there", () => {
  test("a merge into f16 that overflows, which --dtype f32 holds", async () => {
    const large = await changed(adapter, "adapter_model.safetensors", factor, { 3: 60000 });
    const loud = await changed(large, "adapter_model.safetensors", factor.replace("lora_A", "lora_B"), { 2: 3000 });
    const [base, out] = [await stored("f16"), fresh()];
    await refuses(
      ["merge", "--model", base, "--adapter", loud, "--out", out, ...onCpu],
      ['"model.layers.0.self_attn.q_proj.weight" would not be finite at [1, 3]', "f16 ends at 65504"],
    );
    expect(existsSync(out) ? readdirSync(out) : []).toEqual([]);
    const { code, stderr } = await lowrankHere(["merge", "--model", base, "--adapter", loud, "--dtype", "f32", "--out", out, ...onCpu]);
    expect(code, stderr).toBe(0);
    await refuses(["merge", "--model", out, "--adapter", adapter, "--dtype", "f16", "--out", fresh(), ...onCpu], ["f16 ends at 65504"]);
  });

  test("factors of combine that overflow", async () => {
    for (const method of ["svd", "linear", "cat"]) {
      const out = fresh();
      await refuses(["combine", adapter, adapter, "--weights", "3e38,1e300", "--method", method, "--out", out], ["would not be finite"]);
      expect(existsSync(out) ? readdirSync(out) : []).toEqual([]);
    }
  });
});
