// `compareOutputs` against its definitions, computed in float64 from the whole logits of each row.
import { compareOutputs, type Example, generate, ignoredLabel, initModel, recordOutputs } from "@lowrank/models";
import { type Device, device, realize, tensor } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";

const config = {
  model_type: "llama",
  vocab_size: 61,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 96,
};
type Model = Awaited<ReturnType<typeof initModel>>;

let dev: Device;
beforeAll(async () => {
  dev = await device("cpu", { threads: 1 });
});

/** Rows with and without a prompt, of several lengths. */
const rows: readonly Example[] = Array.from({ length: 11 }, (_, row) => {
  const ids = Array.from({ length: 6 + 3 * row }, (_, i) => (row * 17 + i * i * 5 + 3 * i) % 61);
  return { line: row + 1, ids, labels: ids.map((id, i) => (row % 2 === 0 && i < 4 ? ignoredLabel : id)) };
});

/** The model's numbers, each a little another. */
async function perturbed(share: number): Promise<Model> {
  const model = await initModel(config, { device: dev, seed: 3 });
  for (const parameter of model.parameters()) {
    const numbers = Float32Array.from(await parameter.data());
    for (let i = 0; i < numbers.length; i++) numbers[i] = (numbers[i] ?? 0) * (1 + share * Math.sin(i)) + share * 0.1 * Math.cos(3 * i);
    parameter.assign(tensor(numbers, { device: dev, shape: parameter.shape }));
  }
  await realize(...model.parameters());
  return model;
}

/** log softmax of each position's logits, in float64. */
async function logProbabilities(model: Model, ids: readonly number[]): Promise<{ logits: number[][]; logs: number[][] }> {
  const all = await model.forward(tensor([[...ids]], { dtype: "i32", device: dev })).data();
  const logits = ids.map((_, at) => Array.from(all.subarray(at * 61, (at + 1) * 61)));
  const logs = logits.map((row) => {
    const sum = Math.log(row.reduce((total, value) => total + Math.exp(value), 0));
    return row.map((value) => value - sum);
  });
  return { logits, logs };
}

describe("compareOutputs", () => {
  test.each([0, 0.02, 0.3])("numbers that differ by %f: loss, KL, logits and greedy tokens as they are defined", async (share) => {
    const [one, other] = [await perturbed(0), await perturbed(share)];
    const recorded = await recordOutputs(one, rows);
    const found = await compareOutputs(recorded, other);

    let [lossBefore, lossAfter, kl, largest, count] = [0, 0, 0, 0, 0];
    for (const { ids, labels } of rows) {
      const [p, q] = [await logProbabilities(one, ids), await logProbabilities(other, ids)];
      for (let i = 1; i < ids.length; i++) {
        if (labels[i] === ignoredLabel) continue;
        const [a = [], b = []] = [p.logs[i - 1], q.logs[i - 1]];
        lossBefore -= a[ids[i] ?? 0] ?? 0;
        lossAfter -= b[ids[i] ?? 0] ?? 0;
        kl += a.reduce((sum, log, token) => sum + Math.exp(log) * (log - (b[token] ?? 0)), 0);
        for (const [token, value] of (p.logits[i - 1] ?? []).entries())
          largest = Math.max(largest, Math.abs(value - (q.logits[i - 1]?.[token] ?? 0)));
        count++;
      }
    }
    expect(count).toBeLessThan(256); // so that all are compared
    expect(found.positionCount).toBe(count);
    expect(found.tokenCount).toBe(count);
    // f32 sums of other orders.
    expect(found.lossBefore).toBeCloseTo(lossBefore / count, 5);
    expect(found.lossAfter).toBeCloseTo(lossAfter / count, 5);
    expect(found.meanKl).toBeCloseTo(kl / count, 6);
    expect(found.largestLogitDifference).toBeCloseTo(largest, 4);
    if (share === 0) expect(found).toMatchObject({ meanKl: 0, largestLogitDifference: 0, equalTokens: found.greedyTokens });

    let [equal, written] = [0, 0];
    for (const { ids, labels } of rows) {
      const border = labels.findIndex((label) => label !== ignoredLabel);
      const prompt = ids.slice(0, border > 0 ? border : Math.min(8, ids.length - 1));
      const tokens = (await generate(one, prompt, { maxNewTokens: 24, temperature: 0, stopTokens: [] })).slice(0, 256 - written);
      const [p, q] = [await logProbabilities(one, [...prompt, ...tokens]), await logProbabilities(other, [...prompt, ...tokens])];
      const best = (numbers: readonly number[] = []): number => numbers.indexOf(Math.max(...numbers));
      for (let i = 0; i < tokens.length; i++)
        equal += Number(best(p.logits[prompt.length - 1 + i]) === best(q.logits[prompt.length - 1 + i]));
      written += tokens.length;
    }
    expect(found.greedyTokens).toBe(256);
    expect(written).toBe(256);
    expect(found.equalTokens).toBe(equal);
  });

  test("models of other vocabularies are refused", async () => {
    const other = await initModel({ ...config, vocab_size: 70 }, { device: dev, seed: 3 });
    const recorded = await recordOutputs(await perturbed(0), rows.slice(0, 1));
    await expect(compareOutputs(recorded, other)).rejects.toThrow(/61 and 70 tokens/);
  });

  test("an aborted signal ends it", async () => {
    await expect(recordOutputs(await perturbed(0), rows, { signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow("enough");
  });
});
