import { attention, device, type Plan, planningDevice, realize, type Tensor, zeros } from "@lowrank/tensor";
import fc from "fast-check";
import { expect, test } from "vitest";
import { argumentPlaces } from "../src/backends/cpu/executable.js";
import { Heap } from "../src/backends/cpu/heap.js";
import { KernelLibrary } from "../src/backends/cpu/library.js";
import { planSteps, scratchBytesOf, stepBytes } from "../src/backends/cpu/steps.js";
import { GraphBuilder } from "../src/graph/builder.js";
import type { Node } from "../src/graph/node.js";
import { controlBytes } from "../src/kernels/wasm/driver.js";

/** The plan of what `build` makes of zeros of some shapes. */
async function planOf(shapes: readonly (readonly number[])[], build: (...inputs: readonly Tensor[]) => readonly Tensor[]): Promise<Plan> {
  const cpu = await device("cpu");
  const { device: dev, plans } = planningDevice(cpu);
  const inputs = shapes.map((shape) => zeros(shape, { device: dev }));
  await realize(...inputs);
  await realize(...build(...inputs));
  cpu.dispose();
  return plans.at(-1) as Plan; // realize made one
}

const rows: [string, readonly (readonly number[])[], (...inputs: readonly Tensor[]) => readonly Tensor[]][] = [
  ["one loop", [[64, 32]], (x) => [(x as Tensor).exp().sum(1)]],
  [
    "small kernels side by side, of which some pack a matrix",
    [
      [40, 24],
      [24, 16],
      [40, 24],
      [24, 16],
    ],
    (a, b, c, d) => [
      (a as Tensor).matmul(b as Tensor),
      (c as Tensor)
        .matmul(d as Tensor)
        .exp()
        .sum(1),
      (a as Tensor).sum(0),
    ],
  ],
  [
    "attention behind a product",
    [
      [1, 2, 48, 16],
      [16, 16],
    ],
    (x, w) => [attention((x as Tensor).matmul(w as Tensor), x as Tensor, x as Tensor, { isCausal: true })],
  ],
];

test.each(rows)("the bytes of a plan's steps are counted as they are laid out: %s", async (_, shapes, build) => {
  const plan = await planOf(shapes, build);
  const counters = { buffersCreated: 0, pipelinesCreated: 0, plansPrepared: 0, kernelsRun: 0, bytesInUse: 0, peakBytes: 0 };
  const library = new KernelLibrary(new Heap(false, controlBytes(1), 2 ** 26, counters), { isShared: false }, counters);
  const lists = planSteps(plan, library);
  const { wordCount } = argumentPlaces(lists.flatMap(({ steps }) => steps));
  expect(wordCount).toBeGreaterThan(0);
  expect(stepBytes(plan, library)).toBe(scratchBytesOf(lists) + wordCount * 4);
});

test.each(rows)("a plan's kernels are those of its templates: %s", async (_, shapes, build) => {
  const { bound, kernels, names } = await planOf(shapes, build);
  expect(kernels.map((kernel) => (kernel.kind === "group" ? kernel.members : [kernel]))).toEqual(
    bound?.map((members) => members.map(({ kernel }) => kernel)),
  );
  expect(names).toHaveLength(kernels.length);
});

test("a table of nodes finds those that are equal and no others, however it grows and what was taken back", () => {
  const number = fc.nat({ max: 5000 });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat({ max: 20 }), fc.array(number, { maxLength: 3 }), fc.boolean()), { maxLength: 200 }),
      fc.integer({ min: 0, max: 3000 }),
      (steps, before) => {
        const builder = new GraphBuilder();
        const known = new Map<string, number>();
        const leaf = (): Node => ({ op: "iota", axis: 0, shape: [1], dtype: "i32" });
        const add = (form: number, inputs: readonly number[], isLeaf: boolean): void => {
          const own = isLeaf ? (inputs[0] ?? 0) : -1;
          const read = isLeaf ? [] : inputs.map((input) => input % Math.max(builder.count, 1));
          for (const input of read) builder.input(input);
          const hash = builder.hash(form, own);
          const found = builder.find(hash, form, own);
          const key = `${form};${read.join()};${own}`;
          expect(found).toBe(known.get(key) ?? -1);
          if (found >= 0) {
            builder.drop();
            return;
          }
          const node = leaf();
          known.set(key, builder.close(node, form, hash, own));
          expect(builder.numberOf(node)).toBe(known.get(key));
          // A copy has the mark of what it is of, and is none of the nodes.
          expect(builder.numberOf({ ...node })).toBe(-1);
        };
        for (let i = 0; i < before; i++) add(1000 + i, i > 0 ? [i - 1] : [], false);
        for (const [form, inputs, isLeaf] of steps) add(form, inputs, isLeaf);
        expect(builder.all([]).count).toBe(known.size);
      },
    ),
    { numRuns: 20 },
  );
});
