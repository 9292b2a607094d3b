import { cpSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lowrankHere, printed, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train, test: heldOut } = await tinyProject(folder);
const base = ["--model", model, "--device", "cpu"];
const out = join(folder, "run");
const common = ["--data", train, "--rank", "2", "--batch-size", "4", "--steps", "4"];
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const trained = "the base is quantized to nf4, as when";

beforeAll(async () => {
  const { code, stderr } = await lowrankHere(["train", ...base, ...common, "--quantize", "nf4", "--out", out]);
  expect(code, stderr).toBe(0);
});

describe("an adapter that was trained on a quantized base", () => {
  const losses = async (...args: readonly string[]): Promise<{ readonly loss: number; readonly stderr: string }> => {
    const { code, stdout, stderr } = await lowrankHere(["eval", ...base, "--data", heldOut, "--json", ...args]);
    expect(code, stderr).toBe(0);
    return { loss: printed<{ loss: number }>(stdout).loss, stderr };
  };

  test("is evaluated on the same base without a word, and on another where that is asked for", async () => {
    const recorded = await losses("--adapter", out);
    expect(recorded.stderr).toContain(trained);
    const asked = await losses("--adapter", out, "--quantize", "nf4");
    expect(asked.loss).toBe(recorded.loss);
    expect(asked.stderr).not.toContain(trained);
    const dense = await losses("--adapter", out, "--quantize", "none");
    expect(dense.loss).not.toBe(recorded.loss);
    expect(dense.stderr).toMatch(
      /run was trained on a base that was quantized to nf4, and this one is not: .* Load the base with quantize "nf4"\./,
    );
    const other = await losses("--adapter", out, "--quantize", "q8_0");
    expect(other.stderr).toMatch(/quantized to nf4, and this one is to q8_0/);
  });

  test("generates on it, wherever its two files lie", async () => {
    const moved = join(folder, "moved");
    for (const name of ["adapter_config.json", "adapter_model.safetensors"]) cpSync(join(out, name), join(moved, name));
    const args = ["generate", ...base, "--adapter", moved, "--prompt", "red box:", "--max-new-tokens", "3"];
    const { code, stderr } = await lowrankHere(args);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain(trained);
  });

  test("resumes on it, and on no other", async () => {
    const partial = join(folder, "partial");
    const start = ["train", ...base, ...common, "--quantize", "nf4", "--save-every", "1", "--out", partial];
    const stopped = await lowrankHere(start, { stopAt: "step 2/4" });
    expect(stopped.code, stopped.stderr).toBe(130);
    const other = await lowrankHere(["train", "--resume", "--out", partial, "--quantize", "q8_0"]);
    expect(other.code).toBe(2);
    expect(other.stderr).toMatch(/partial holds a run with other settings: --quantize was nf4 and is q8_0\./);
    const resumed = await lowrankHere(["train", "--resume", "--out", partial]);
    expect(resumed.code, resumed.stderr).toBe(0);
    const name = "adapter_model.safetensors";
    expect(readFileSync(join(partial, name)).equals(readFileSync(join(out, name)))).toBe(true);
  });
});

const refused: readonly (readonly [args: readonly string[], says: RegExp])[] = [
  [
    ["train", ...base, "--data", train, "--method", "full", "--quantize", "nf4", "--out", join(folder, "full")],
    /--quantize freezes weights in blocks, and --method full trains them/,
  ],
  [
    ["plan", "--model", model, "--method", "full", "--quantize", "nf4"],
    /--quantize freezes weights in blocks, and --method full trains them/,
  ],
  [["generate", ...base, "--quantize", "q3_k", "--prompt", "a"], /--quantize.*none, nf4, fp4, int8, q8_0/],
];
test.each(refused)("%j is refused", async (args, says) => {
  const { code, stderr } = await lowrankHere(args);
  expect(code).toBe(2);
  expect(stderr).toMatch(says);
});

test("plan knows what a quantized base takes", async () => {
  const frozen = async (...args: readonly string[]): Promise<number> => {
    const { code, stdout, stderr } = await lowrankHere(["plan", "--model", model, "--json", ...args]);
    expect(code, stderr).toBe(0);
    return printed<{ weightBytes: { frozen: number } }>(stdout).weightBytes.frozen;
  };
  // Two layers of 4 · 32² + 3 · 32 · 64 numbers: half a byte each, a byte a block of 64, and for each of 14 weights a table of 16 and one of 256, an f32 a 256 blocks and an offset.
  const numbers = 2 * (4 * 32 ** 2 + 3 * 32 * 64);
  expect((await frozen()) - (await frozen("--quantize", "nf4"))).toBe(
    4 * numbers - (numbers / 2 + numbers / 64 + 14 * 4 * (16 + 256 + 1 + 1)),
  );
});
