import { sample } from "@lowrank/models";
import fc from "fast-check";
import { expect, test } from "vitest";
import { chunkStep, chunksFor } from "../../src/generate/chunks.js";
import { logProbability, type SamplingOptions, sampleWarped, seededRandom } from "../../src/generate/sample.js";

/** All tokens in order, the likeliest first, and a walk along them: what sampling means. */
function bySorting(logits: readonly number[], { temperature = 1, topK, topP }: SamplingOptions, random: () => number): number {
  const order = logits.map((_, id) => id).sort((i, j) => (logits[j] ?? 0) - (logits[i] ?? 0) || i - j);
  const kept = order.slice(0, topK ?? order.length);
  const weights = kept.map((id) => Math.exp(((logits[id] ?? 0) - (logits[kept[0] ?? 0] ?? 0)) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let count = weights.length;
  if (topP !== undefined && topP < 1) {
    let sum = 0;
    for (count = 0; count < weights.length && sum < topP * total; count++) sum += weights[count] ?? 0;
  }
  let rest = random() * weights.slice(0, count).reduce((sum, weight) => sum + weight, 0);
  for (let i = 0; i < count; i++) {
    rest -= weights[i] ?? 0;
    if (rest < 0) return kept[i] ?? 0;
  }
  return kept[count - 1] ?? 0;
}

const logitsOf = fc.oneof(
  fc.array(fc.float({ min: -30, max: 30, noNaN: true }), { minLength: 1, maxLength: 200 }),
  // Many that are equal.
  fc.array(fc.integer({ min: -2, max: 2 }), { minLength: 1, maxLength: 200 }),
  fc.array(fc.constantFrom(0, -500, Number.NEGATIVE_INFINITY), { minLength: 1, maxLength: 20 }).map((rest) => [1, ...rest]),
);

test("the token for a seed is that of the sorted tokens, with any temperature, topK and topP", () => {
  const options = fc.record(
    {
      temperature: fc.constantFrom(0.01, 0.3, 1, 2.5),
      topK: fc.integer({ min: 1, max: 60 }),
      topP: fc.constantFrom(1e-9, 0.3, 0.9, 0.999, 1),
    },
    { requiredKeys: ["temperature"] },
  );
  fc.assert(
    fc.property(logitsOf, options, fc.nat(1000), (values, given, seed) => {
      const logits = Float32Array.from(values);
      expect(sample(logits, given, seededRandom(seed))).toBe(bySorting([...logits], given, seededRandom(seed)));
    }),
    { numRuns: 400, seed: 3 },
  );
});

test("without a temperature the token is the first of the largest logits", () => {
  expect(sample([1, 5, 5, 2], {}, Math.random)).toBe(1);
});

test("a prompt of any length is read by passes of the same few sizes, of hardly more tokens than it has", () => {
  const sizes = new Set<number>();
  for (let length = 1; length <= 3000; length++) {
    const room = 3008;
    const chunks = chunksFor(length, room);
    const sum = chunks.reduce((all, size) => all + size, 0);
    expect(sum).toBeGreaterThanOrEqual(length);
    expect(sum).toBeLessThanOrEqual(room);
    // A pass costs about as much as twelve tokens more.
    if (length >= 256) expect(sum + 12 * chunks.length).toBeLessThanOrEqual(1.1 * (length + 12 * Math.ceil(length / 256)) + chunkStep);
    for (const size of chunks) sizes.add(size);
  }
  expect([...sizes].sort((a, b) => a - b)).toEqual([4, 16, 64, 256]);
  for (const [length, passes] of [
    [1, [4]],
    [4, [4]],
    [5, [16]],
    [20, [16, 16]],
  ] as const)
    expect(chunksFor(length, 3008)).toEqual(passes);
});

test("a prompt that fills its context is read in passes that do not leave the room for it", () => {
  for (const context of [16, 96, 272, 1024]) {
    // Four tokens alone are read as such.
    for (let length = Math.max(5, context - 15); length <= context; length++)
      expect(chunksFor(length, context).reduce((all, size) => all + size, 0)).toBe(context);
  }
});

/** What transformers' processors of logits leave of eight tokens' probabilities, after a text of the tokens 6, 4 and 1. */
const warped: readonly (readonly [name: string, options: SamplingOptions, probabilities: readonly number[]])[] = [
  [
    "repetition penalty",
    { temperature: 1, repetitionPenalty: 1.5 },
    [0.318194, 0.117057, 0.117057, 0.043063, 0.009609, 0.005828, 0.318194, 0.070999],
  ],
  ["minP", { temperature: 0.7, minP: 0.2 }, [0.193321, 0, 0, 0, 0, 0, 0.806679, 0]],
  ["typicalP", { temperature: 1, typicalP: 0.5 }, [0.231224, 0.140244, 0, 0, 0, 0, 0.628532, 0]],
  [
    "all options together",
    { temperature: 1.3, topK: 6, topP: 0.95, minP: 0.05, typicalP: 0.8, repetitionPenalty: 1.2 },
    [0.286201, 0.160738, 0.132617, 0, 0, 0, 0.420444, 0],
  ],
];

test.each(warped)("%s leaves the probabilities that transformers leaves", (_, options, probabilities) => {
  const logits = Float32Array.from([2, 1.5, 1, 0, -1, -2, 3, 0.5]);
  const counts = probabilities.map(() => 0);
  const draws = 20_000;
  for (let i = 0; i < draws; i++) {
    const token = sampleWarped(logits, options, [6, 4, 1], () => (i + 0.5) / draws);
    counts[token] = (counts[token] ?? 0) + 1 / draws;
  }
  // A draw more or less at each end of a token's interval.
  for (const [id, probability] of probabilities.entries()) expect(Math.abs((counts[id] ?? 0) - probability)).toBeLessThan(2 / draws);
});

test("the penalty decides a greedy choice, and log-probabilities are those of the logits", () => {
  const logits = Float32Array.from([2, 1.9, -1]);
  expect([sampleWarped(logits, { repetitionPenalty: 1.2 }, [0], () => 0), sampleWarped(logits, {}, [], () => 0)]).toEqual([1, 0]);
  const total = Math.log(Math.exp(2) + Math.exp(1.9) + Math.exp(-1));
  expect(logProbability(logits, 1)).toBeCloseTo(1.9 - total, 6);
});
