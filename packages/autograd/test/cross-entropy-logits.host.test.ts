import {
  type Device,
  device,
  type LinearCrossEntropyOptions,
  linearCrossEntropy,
  planningDevice,
  realize,
  type Tensor,
  tensor,
} from "@lowrank/tensor";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { grad } from "../src/index.js";
import { values } from "./expressions.js";

let cpu: Device;
let reference: Device;
beforeAll(async () => {
  [cpu, reference] = [await device("cpu"), await device("reference")];
});
afterAll(() => cpu.dispose());

interface Sizes {
  readonly rows: number;
  readonly classes: number;
  readonly width: number;
  readonly trained: "hidden" | "hidden and weight";
}

/** Losses, then the gradients of what is trained. */
function step(dev: Device, { rows, classes, width, trained }: Sizes, logits: NonNullable<LinearCrossEntropyOptions["logits"]>): Tensor[] {
  const hidden = tensor(values([rows, width], 1), { shape: [rows, width], device: dev });
  const weight = tensor(values([classes, width], 2), { shape: [classes, width], device: dev });
  const list = Int32Array.from({ length: rows }, (_, i) => (i % 5 === 3 ? -100 : (i * 7919) % classes));
  const losses = linearCrossEntropy(hidden, weight, tensor(list, { dtype: "i32", device: dev }), { logits });
  const scale = tensor(values([rows], 3), { device: dev });
  return [losses, ...grad(losses.mul(scale).sum(), trained === "hidden" ? [hidden] : [hidden, weight])];
}

const capped = (l: Tensor): Tensor => l.div(3).tanh().mul(3);
const cases: Readonly<Record<string, Sizes & { readonly logits: NonNullable<LinearCrossEntropyOptions["logits"]> }>> = {
  "a soft cap": { rows: 70, classes: 41, width: 12, trained: "hidden and weight", logits: capped },
  "a soft cap in front of a frozen head": { rows: 70, classes: 41, width: 12, trained: "hidden", logits: capped },
  "a temperature, and a bias for each class": {
    ...{ rows: 33, classes: 50, width: 8, trained: "hidden and weight" },
    logits: (l, { class: position }) =>
      l
        .mul(0.7)
        .add(tensor(values([50], 9), { device: l.device }))
        .sub(position.mul(0.01)),
  },
  "what is one row's: not elementwise": {
    ...{ rows: 20, classes: 11, width: 4, trained: "hidden and weight" },
    logits: (l) => l.sub(l.mean(-1, { keepDims: true })).tanh(),
  },
};

/** Throws where a result is not the float64 reference's. */
async function compare(got: readonly Tensor[], want: readonly Tensor[]): Promise<void> {
  for (const [i, result] of got.entries()) {
    const exact = Array.from((await want[i]?.data()) ?? []);
    const size = exact.reduce((most, x) => Math.max(most, Math.abs(x)), 1);
    const worst = Array.from(await result.data()).reduce((most, x, j) => Math.max(most, Math.abs(x - (exact[j] ?? Number.NaN))), 0);
    // f32 sums of some hundred terms.
    expect(worst / size, `result ${i}`).toBeLessThan(4e-6);
  }
}

describe("logits in front of the cross-entropy against float64", () => {
  test.each(Object.entries(cases))("%s, loss and gradients at once", async (_name, { logits, ...sizes }) => {
    const got = step(cpu, sizes, logits);
    await realize(...got);
    await compare(got, step(reference, sizes, logits));
  });

  test.each(Object.entries(cases))("%s, one after the other", async (_name, { logits, ...sizes }) => {
    await compare(step(cpu, sizes, logits), step(reference, sizes, logits));
  });

  test("refuse a result of another shape", () => {
    expect(() => step(cpu, { rows: 3, classes: 4, width: 2, trained: "hidden" }, (l) => l.sum(-1))).toThrow(
      /logits returned \[1\] for logits \[1, 4\]/,
    );
  });
});

test("soft-capped logits and their gradients are one kernel, and hold no matrix of rows by classes", async () => {
  const { device: planning, plans } = planningDevice(cpu);
  const sizes = { rows: 300, classes: 1000, width: 16, trained: "hidden and weight" } as const;
  await realize(...step(planning, sizes, capped));
  expect(plans.flatMap(({ kernels }) => kernels.flatMap((kernel) => (kernel.kind === "composite" ? kernel.name : [])))).toEqual([
    "linearCrossEntropyTraining",
  ]);
  expect(Math.max(...plans.flatMap(({ slots }) => slots.map(({ elementCount }) => elementCount)))).toBeLessThan(300 * 1000);
});
