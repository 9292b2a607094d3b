// Slow: a model of 135 million parameters, as transformers and PEFT compute it (reference.py, whose results are in reference.json).
// LOWRANK_CURVE_STEPS=60 trains all 60 steps of the curve, for some seven minutes; the first ones stand for them.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Adapter, applyAdapter, saveAdapter } from "@lowrank/lora";
import { type Example, type LoadedModel, loadModel, shuffledOrder, TextGenerator, train } from "@lowrank/models";
import { type Device, device, tensor } from "@lowrank/tensor";
import { pythonWithPeft, sharedDir, smollm2 } from "test-support";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

interface Reference {
  readonly answers: readonly { readonly prompt: string; readonly ids: readonly number[]; readonly answer: readonly number[] }[];
  readonly window: readonly number[];
  readonly loss: number;
  readonly curve: { readonly rate: number; readonly rank: number; readonly alpha: number; readonly losses: readonly number[] };
}

const reference = JSON.parse(readFileSync(new URL("./reference.json", import.meta.url), "utf8")) as Reference;
const folder = smollm2();
const data = sharedDir("data", "e2e");
const stepCount = Number(process.env["LOWRANK_CURVE_STEPS"] ?? 4);
const windowLength = reference.window.length;

describe.skipIf(folder === null)("SmolLM2-135M-Instruct", () => {
  let dev: Device;
  let loaded: LoadedModel;
  const scratch = mkdtempSync(join(tmpdir(), "lowrank-smollm2-"));
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));
  beforeAll(async () => {
    dev = await device("cpu");
    loaded = await loadModel(folder ?? "", { device: dev });
  });

  test("answers twelve chat prompts as transformers does, token for token", async () => {
    const { model, tokenizer } = loaded;
    const generator = new TextGenerator(model);
    for (const { prompt, ids, answer } of reference.answers) {
      const text = tokenizer?.applyChatTemplate([{ role: "user", content: prompt }], { addGenerationPrompt: true }) ?? "";
      expect(tokenizer?.encode(text, { addSpecialTokens: false }), prompt).toEqual(ids);
      expect(answer.length).toBeGreaterThan(1);
    }
    const found = await generator.generate(
      reference.answers.map(({ ids }) => ids),
      { maxNewTokens: Math.max(...reference.answers.map(({ answer }) => answer.length)), temperature: 0 },
    );
    // What ends an answer is part of theirs.
    const stops = new Set(model.stopTokens);
    expect(found).toEqual(reference.answers.map(({ answer }) => answer.filter((token) => !stops.has(token))));
    generator.dispose();
  });

  test("has the loss of a text of 512 tokens that transformers computes in float64 to 3e-7 of it", async () => {
    const ids = tensor(reference.window, { dtype: "i32", shape: [1, windowLength], device: dev });
    const loss = await loaded.model.loss(ids, ids).item();
    expect(Math.abs(loss - reference.loss) / reference.loss).toBeLessThan(3e-7);
  });

  /** Numbers in (−1, 1) / √in out of an integer hash of where they stand, as `first_values` of reference.py. */
  function firstValues(tensorIndex: number, [rank = 0, inFeatures = 0]: readonly number[]): Float32Array {
    return Float32Array.from({ length: rank * inFeatures }, (_, i) => {
      let h = i + Math.imul(tensorIndex, 0x9e3779b9);
      h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
      h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
      return (((h ^ (h >>> 16)) >>> 0) / 2 ** 31 - 1) / Math.sqrt(inFeatures);
    });
  }

  /** Rows' tokens one behind the other, in windows. */
  function windows(count: number): number[][] {
    const { tokenizer } = loaded;
    const ids: number[] = [];
    for (const line of readFileSync(join(data ?? "", "train.jsonl"), "utf8").split("\n")) {
      if (ids.length >= count * windowLength) break;
      const { prompt, completion } = JSON.parse(line) as { readonly prompt: string; readonly completion: string };
      ids.push(...(tokenizer?.encode(`${prompt} ${completion}`, { addSpecialTokens: false }) ?? []), tokenizer?.eosTokenId ?? 0);
    }
    return Array.from({ length: count }, (_, i) => ids.slice(i * windowLength, (i + 1) * windowLength));
  }

  describe.skipIf(data === null)("trained on E2E", () => {
    let adapter: Adapter;
    const { rate, rank, alpha, losses: wanted } = reference.curve;

    beforeAll(() => {
      adapter = applyAdapter(loaded.model, { method: "lora", rank, alpha, targets: "all-linear" });
      const pairs = [...adapter.namedParameters()].filter(([name]) => name.includes("lora_A")).sort(([a], [b]) => (a < b ? -1 : 1));
      for (const [index, [, a]] of pairs.entries()) a.assign(tensor(firstValues(index, a.shape), { device: dev, shape: a.shape }));
    });
    afterAll(() => adapter.dispose());

    test(`by LoRA, each of ${stepCount} losses is within 1 % of PEFT's`, async () => {
      const texts = windows(stepCount);
      expect(texts[0]).toEqual(reference.window);
      // Where a text has to lie so that the run's order makes it the next.
      const order = [...shuffledOrder(stepCount, 0, 0)];
      const examples = Array.from({ length: stepCount }, (_, at): Example => {
        const ids = texts[order.indexOf(at)] ?? [];
        return { ids, labels: ids, line: at };
      });
      const found: number[] = [];
      const { model } = loaded;
      await train({
        model,
        parameters: adapter.namedParameters(),
        rules: adapter.training,
        examples,
        lengthLimit: windowLength,
        steps: stepCount,
        batchSize: 1,
        seed: 0,
        schedule: () => rate,
        onStep: ({ loss }) => void found.push(loss),
      });
      for (const [i, loss] of found.entries()) expect(Math.abs(loss / (wanted[i] ?? Number.NaN) - 1), `step ${i + 1}`).toBeLessThan(0.01);
      expect(found).toHaveLength(Math.min(stepCount, wanted.length));
      const worst = Math.max(...found.map((loss, i) => Math.abs(loss / (wanted[i] ?? Number.NaN) - 1)));
      process.stderr.write(`SmolLM2-135M: ${stepCount} losses are within ${(100 * worst).toFixed(4)} % of PEFT's\n`);
    }, 3_600_000);

    test("PEFT reads the adapter and has our loss, in float64, to 1e-6 of it", async ({ skip }) => {
      const python = pythonWithPeft();
      if (python === null) return skip();
      const ids = tensor(reference.window, { dtype: "i32", shape: [1, windowLength], device: dev });
      const loss = await loaded.model.loss(ids, ids).item();
      await saveAdapter(adapter, join(scratch, "adapter"));
      const script = fileURLToPath(new URL("./reference.py", import.meta.url));
      const args = [script, folder ?? "", join(data ?? "", "train.jsonl"), "--adapter", join(scratch, "adapter")];
      const theirs = (JSON.parse(execFileSync(python, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })) as { loss: number })
        .loss;
      expect(Math.abs(loss - theirs) / theirs).toBeLessThan(1e-6);
    });
  });
});
