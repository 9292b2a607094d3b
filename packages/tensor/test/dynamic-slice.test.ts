import { compile, type Device, device, dynamicSlice, dynamicUpdateSlice, realize, ShapeError, Tensor, tensor } from "@lowrank/tensor";
import fc from "fast-check";
import { testDevice } from "test-support";
import { beforeAll, expect, test } from "vitest";

let tested: Device;
beforeAll(async () => {
  tested = await testDevice();
});

/** A part of the state [2, 6], at starts of each row or of the whole, and what is done with it. */
interface Step {
  readonly kind: "update" | "updateFromOld" | "read" | "shift" | "keepOld";
  readonly isBatched: boolean;
  readonly starts: readonly [number, number];
  readonly width: number;
}

const step = fc.record<Step>({
  kind: fc.constantFrom("update", "update", "updateFromOld", "read", "shift", "keepOld"),
  isBatched: fc.boolean(),
  starts: fc.tuple(fc.integer({ min: -2, max: 8 }), fc.integer({ min: -2, max: 8 })),
  width: fc.integer({ min: 1, max: 5 }),
});

/** The state before and after, and all that was read, where `state` is assigned as the steps say. */
function program(state: Tensor, starts: readonly Tensor[], steps: readonly Step[]): Tensor[] {
  const reads: Tensor[] = [];
  for (const [n, { kind, isBatched, width }] of steps.entries()) {
    const at = starts[n] as Tensor; // one a step
    const before = state.add(0);
    const part = dynamicSlice(state, at, isBatched ? [width] : [2, width]);
    if (kind === "read") reads.push(part.square());
    // The old contents are wanted after the update.
    else if (kind === "keepOld") {
      state.assign(dynamicUpdateSlice(state, part.mul(0.5), at));
      reads.push(before.mul(state));
    } else if (kind === "shift") state.assign(state.mul(0.5).add(n));
    // The update is made of what it does not lie over.
    else if (kind === "updateFromOld") state.assign(dynamicUpdateSlice(state, state.flip(1).slice(null, [0, width]), at));
    else state.assign(dynamicUpdateSlice(state, part.tanh().add(n), at));
  }
  return reads;
}

async function run(dev: Device, steps: readonly Step[], isCompiled: boolean): Promise<number[][]> {
  const state = tensor(
    Array.from({ length: 12 }, (_, i) => Math.sin(i)),
    { device: dev, shape: [2, 6] },
  );
  const starts = steps.map(({ isBatched, starts: [a, b] }) =>
    isBatched ? tensor([a, b], { device: dev, dtype: "i32", shape: [2, 1] }) : tensor([a, b], { device: dev, dtype: "i32" }),
  );
  const reads = isCompiled ? compile((...at: Tensor[]) => program(state, at, steps))(...starts) : program(state, starts, steps);
  await realize(...reads, state);
  const results: number[][] = [];
  for (const t of [...reads, state]) results.push(Array.from(await t.data()));
  return results;
}

test("random programs of parts, updates and reads of the old and of the new = the float64 reference, compiled and not", async () => {
  const reference = await device("reference");
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 7 }), fc.boolean(), async (steps, isCompiled) => {
      const [want, got] = [await run(reference, steps, false), await run(tested, steps, isCompiled)];
      expect(got.map((values) => values.length)).toEqual(want.map((values) => values.length));
      for (const [i, values] of want.entries()) for (const [j, value] of values.entries()) expect(got[i]?.[j]).toBeCloseTo(value, 4);
    }),
    { numRuns: 60, seed: 11 },
  );
});

test.each([
  ["starts of another rank", () => dynamicSlice(zeros(), ints([1]), [1, 1]), /starts are i32 \[1\]/],
  ["starts that are not i32", () => dynamicSlice(zeros(), zeros().slice([0, 1], [0, 2]).reshape([2]), [1, 1]), /starts are f32 \[2\]/],
  ["sizes beyond the tensor", () => dynamicSlice(zeros(), ints([0, 0]), [3, 1]), /sizes \[3, 1\]/],
  ["updates of another rank", () => dynamicUpdateSlice(zeros(), ints([0, 0]), ints([0, 0])), /update of shape \[2\]/],
  ["updates of another batch", () => dynamicUpdateSlice(zeros(), zeros().slice([0, 1]), ints([0, 0]).reshape([2, 1])), /same batch/],
] as const)("%s are a ShapeError that says the shapes", (_name, make, says) => {
  expect(make).toThrow(ShapeError);
  expect(make).toThrow(says);
});

function zeros(): Tensor {
  return new Tensor({ op: "const", value: 0, shape: [2, 6], dtype: "f32" }, tested);
}

function ints(values: readonly number[]): Tensor {
  return tensor([...values], { device: tested, dtype: "i32" });
}
