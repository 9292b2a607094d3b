import {
  type AttentionOptions,
  attention,
  type Device,
  device,
  full,
  hasOwnKernel,
  planningDevice,
  realize,
  type ScorePositions,
  type Tensor,
  tensor,
  zeros,
} from "@lowrank/tensor";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { grad } from "../src/index.js";
import { values } from "./expressions.js";

let cpu: Device;
beforeAll(async () => {
  cpu = await device("cpu");
});
afterAll(() => cpu.dispose());

const shape = [1, 2, 33, 4];
const inputs = (dev: Device): Tensor[] => [1, 2, 3].map((seed) => tensor(values(shape, seed), { shape, device: dev }));
const run = (dev: Device, options: AttentionOptions): Tensor => {
  const [q, k, v] = inputs(dev) as [Tensor, Tensor, Tensor];
  return attention(q, k, v, options);
};

describe("scores of attention that a kernel computes on the way", () => {
  const cases: Record<string, { readonly scores: NonNullable<AttentionOptions["scores"]>; readonly isFused: boolean }> = {
    "a soft cap": { isFused: true, scores: (s) => s.div(5).tanh().mul(5) },
    "a composite, as gelu": { isFused: true, scores: (s) => s.gelu() },
    "positions alone": { isFused: true, scores: (s, { query, key }) => query.sub(key).less(5).where(s, -1) },
    "a tensor from outside": { isFused: true, scores: (s) => s.add(tensor(values([33, 33], 4), { shape: [33, 33], device: s.device })) },
    "a constant": { isFused: true, scores: (s) => zeros(s.shape, { device: s.device }) },
    "the row's largest score: not elementwise": { isFused: false, scores: (s) => s.sub(s.max(-1, { keepDims: true })) },
    "the next key's score: not elementwise": { isFused: false, scores: (s) => s.flip(-1) },
    "a rounding to bf16, which must not be optimised away": { isFused: false, scores: (s) => s.cast("bf16").cast("f32") },
  };
  test.each(Object.entries(cases))("%s", async (_name, { scores, isFused }) => {
    const reference = await device("reference");
    const out = run(cpu, { isCausal: true, scores });
    expect(hasOwnKernel(out)).toBe(isFused);
    const want = await run(reference, { isCausal: true, scores }).data();
    for (const [i, x] of (await out.data()).entries()) expect(Math.abs(x - (want[i] ?? Number.NaN))).toBeLessThan(1e-5);
  });

  test("refuse a result of another shape", () => {
    expect(() => run(cpu, { scores: (s) => s.sum(-1) })).toThrow(/scores returned \[1, 2, 33\] for scores \[1, 2, 33, 33\]/);
  });

  test("are another plan where they are other functions, and the same plan where they are the same", async () => {
    const by = (cap: number): Promise<ArrayLike<number>> => run(cpu, { scores: (s) => s.div(cap).tanh().mul(cap) }).data();
    const [first, second] = [await by(0.5), await by(4)];
    expect(first[9]).not.toBe(second[9]);
    const before = cpu.backend.counters.plansPrepared;
    expect((await by(0.5))[9]).toBe(first[9]);
    expect(cpu.backend.counters.plansPrepared).toBe(before);
  });
});

/** Functions of scores, positions and captured tensors; the last number of each choice is a seed. */
const grammar = fc.letrec<{ term: Term; leaf: Term }>((tie) => ({
  leaf: fc.oneof(
    fc.constant<Term>((s) => s),
    fc.constantFrom("batch", "head", "query", "key").map(
      (name): Term =>
        (_s, at) =>
          at[name as keyof ScorePositions].cast("f32").div(9),
    ),
    fc.tuple(fc.constantFrom([2, 4, 9, 11], [4, 1, 1], [9, 1], [11], [1, 4, 1, 11], [2, 1, 1, 1]), fc.nat({ max: 9 })).map(
      ([shape, seed]): Term =>
        (s) =>
          tensor(values(shape, seed), { shape, device: s.device }),
    ),
    fc.double({ min: -2, max: 2, noNaN: true }).map(
      (value): Term =>
        (s) =>
          full([], value, { device: s.device }),
    ),
  ),
  term: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    tie("leaf"),
    fc.tuple(fc.constantFrom("add", "sub", "mul"), tie("term"), tie("term")).map(
      ([kind, a, b]): Term =>
        (s, at) =>
          a(s, at)[kind as "add"](b(s, at)),
    ),
    fc.tuple(fc.constantFrom("tanh", "sin", "neg", "sigmoid"), tie("term")).map(
      ([kind, a]): Term =>
        (s, at) =>
          a(s, at)[kind as "tanh"](),
    ),
    fc.tuple(tie("term"), tie("term")).map(
      ([a, b]): Term =>
        (s, at) =>
          at.key.lessEqual(at.query).where(a(s, at), b(s, at)),
    ),
  ),
}));
type Term = (s: Tensor, at: ScorePositions) => Tensor;

test("any elementwise function of scores gives the float64 reference's results and gradients", async () => {
  const reference = await device("reference");
  const [queries, keys] = [
    [2, 4, 9, 4],
    [2, 2, 11, 4],
  ] as const;
  const results = async (dev: Device, term: Term): Promise<ArrayLike<number>[]> => {
    const [q, k, v] = [queries, keys, keys].map((own, i) => tensor(values(own, i + 1), { shape: own, device: dev })) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    // Bounded, so that rounding is that of the sums alone.
    const out = attention(q, k, v, { isCausal: true, window: 6, prefix: 2, scores: (s, at) => term(s, at).add(s).tanh().mul(3) });
    if (dev === cpu) expect(hasOwnKernel(out)).toBe(true);
    const all = [out, ...grad(out.mul(tensor(values(queries, 5), { shape: queries, device: dev })).sum(), [q, k, v])];
    await realize(...all);
    return Promise.all(all.map((t) => t.data()));
  };
  const law = fc.asyncProperty(grammar.term, async (term) => {
    const [got, want] = [await results(cpu, term), await results(reference, term)];
    for (const [i, exact] of want.entries()) {
      for (const [j, x] of Array.from(exact).entries()) expect(Math.abs((got[i]?.[j] ?? Number.NaN) - x)).toBeLessThan(2e-4);
    }
  });
  await fc.assert(law, { numRuns: 25, seed: 7 });
});

test.each([
  ["soft-capped attention", { scores: (s: Tensor) => s.div(30).tanh().mul(30) }, false],
  ["attention with sinks", {}, true],
] as const)("%s and its gradients hold no matrix of queries by keys", async (_name, options, hasSinks) => {
  const { device: planning, plans } = planningDevice(cpu);
  const wide = [1, 2, 300, 8];
  const [q, k, v] = [1, 2, 3].map((seed) => tensor(values(wide, seed), { shape: wide, device: planning })) as [Tensor, Tensor, Tensor];
  const sinks = tensor([0.5, -1], { device: planning });
  const out = attention(q, k, v, { isCausal: true, window: 100, ...options, ...(hasSinks && { sinks }) });
  await realize(out, ...grad(out.square().sum(), [q, k, v]));
  const largest = Math.max(...plans.flatMap((plan) => plan.slots.map(({ elementCount }) => elementCount)));
  const all = plans.flatMap(({ kernels }) => kernels.flatMap((kernel) => (kernel.kind === "group" ? kernel.members : [kernel])));
  expect(all.flatMap((kernel) => (kernel.kind === "composite" ? kernel.name : []))).toEqual(["attention", "attentionBackward"]);
  expect(largest).toBeLessThan(300 * 300);
});
