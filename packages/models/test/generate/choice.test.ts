import { compile, type Device, Tensor, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { choiceKind, chosen, countOn, readChoice } from "../../src/generate/choice.js";
import { likeliest } from "../../src/generate/likeliest.js";
import { type SamplingOptions, sample, seededRandom } from "../../src/generate/sample.js";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});
afterEach(() => void vi.restoreAllMocks());

/** Numbers that differ everywhere, in no order. */
const wild = (count: number, seed: number): number[] =>
  Array.from({ length: count }, (_, i) => Math.fround(8 * Math.sin((i + 1) * 12.9898 + seed) + 3 * Math.sin(i * 78.233 * seed)));

function logitsOn(rows: readonly (readonly number[])[]): Tensor {
  return tensor(Float32Array.from(rows.flat()), { device: dev, shape: [rows.length, rows[0]?.length ?? 0] });
}

describe.each([
  { name: "a small vocabulary", vocab: 300, k: 5, slots: 64 },
  { name: "more than a group of blocks", vocab: 9000, k: 40, slots: 128 },
  { name: "k of another size, by the same plan", vocab: 9000, k: 3, slots: 128 },
])("the likeliest of $name", ({ vocab, k, slots }) => {
  test("are found on the device with their logits, in the order of their ids", async () => {
    const rows = [wild(vocab, 1), wild(vocab, 2).map((x) => Math.fround(x * 1e-3))];
    const result = likeliest(logitsOn(rows), tensor([k], { device: dev, dtype: "i32" }), slots);
    const [counts, ids, logits] = [await result.count.data(), await result.ids.data(), await result.logits.data()];
    for (const [r, row] of rows.entries()) {
      const count = counts[r] ?? 0;
      expect(count).toBeGreaterThanOrEqual(k);
      expect(count).toBeLessThanOrEqual(slots);
      const found = [...ids.slice(r * slots, r * slots + count)];
      const largest = row.map((_, id) => id).sort((i, j) => (row[j] ?? 0) - (row[i] ?? 0));
      expect(found).toEqual(largest.slice(0, count).sort((a, b) => a - b));
      expect([...logits.slice(r * slots, r * slots + count)]).toEqual(found.map((id) => row[id]));
    }
  });
});

interface Row {
  readonly name: string;
  readonly rows: readonly (readonly number[])[];
  readonly options: SamplingOptions;
  /** Numbers that are read of each text. */
  readonly reads: number;
}

const table: readonly Row[] = [
  { name: "greedy reads one index", rows: [wild(500, 3), wild(500, 4)], options: {}, reads: 1 },
  {
    name: "topK reads twice as many as fit its slots, and how many they are",
    rows: [wild(500, 5), wild(500, 6)],
    options: { temperature: 1, topK: 20 },
    reads: 129,
  },
  {
    name: "topK among equals that do not fit reads all as well",
    rows: [new Array<number>(500).fill(1)],
    options: { temperature: 1, topK: 20 },
    reads: 629,
  },
  {
    name: "topK with tokens at -∞ reads what it has to",
    rows: [wild(500, 7).map((x, i) => (i % 2 ? x : Number.NEGATIVE_INFINITY))],
    options: { temperature: 0.7, topK: 9, topP: 0.8 },
    reads: 629,
  },
  { name: "a topK of most tokens reads all", rows: [wild(500, 8)], options: { temperature: 1, topK: 400 }, reads: 500 },
  { name: "temperature alone reads all", rows: [wild(500, 9)], options: { temperature: 2 }, reads: 500 },
];

test.each(table)("$name, and the token for a seed is that of all logits", async ({ rows, options, reads }) => {
  const logits = logitsOn(rows);
  const kind = choiceKind(options, logits.shape[1] ?? 0);
  const choose = compile((x: Tensor, k: Tensor | null) => chosen(x.add(0), kind, k));
  for (let seed = 0; seed < 8; seed++) {
    const result = choose(logits, countOn(dev, options));
    let count = 0;
    const { data } = Tensor.prototype;
    vi.spyOn(Tensor.prototype, "data").mockImplementation(function (this: Tensor) {
      count += this.size;
      return data.call(this);
    });
    const texts = rows.map((_, text) => ({ random: seededRandom(seed + text * 2 ** 32), seen: () => [] }));
    const choices = await readChoice(result, options, texts, () => true);
    vi.restoreAllMocks();
    expect(count).toBe(reads * rows.length);
    expect(choices.map((choice) => choice?.token)).toEqual(
      rows.map((row, text) => sample(Float32Array.from(row), options, seededRandom(seed + text * 2 ** 32))),
    );
  }
});
