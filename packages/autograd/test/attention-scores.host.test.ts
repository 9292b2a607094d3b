import {
  type AttentionOptions,
  attention,
  type Device,
  device,
  hasOwnKernel,
  planningDevice,
  realize,
  type Tensor,
  tensor,
  zeros,
} from "@lowrank/tensor";
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

test("soft-capped attention and its gradients hold no matrix of queries by keys", async () => {
  const { device: planning, plans } = planningDevice(cpu);
  const wide = [1, 2, 300, 8];
  const [q, k, v] = [1, 2, 3].map((seed) => tensor(values(wide, seed), { shape: wide, device: planning })) as [Tensor, Tensor, Tensor];
  const out = attention(q, k, v, { isCausal: true, window: 100, scores: (s) => s.div(30).tanh().mul(30) });
  await realize(out, ...grad(out.square().sum(), [q, k, v]));
  const largest = Math.max(...plans.flatMap((plan) => plan.slots.map(({ elementCount }) => elementCount)));
  expect(plans.flatMap(({ kernels }) => kernels.flatMap((kernel) => (kernel.kind === "composite" ? kernel.name : [])))).toEqual([
    "attention",
    "attentionBackward",
  ]);
  expect(largest).toBeLessThan(300 * 300);
});
