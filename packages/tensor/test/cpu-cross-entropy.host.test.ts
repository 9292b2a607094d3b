// Slow: vocabularies of several parts, each summed again in float64.
import { afterAll, expect, test } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import type { CompositeKernel } from "../src/kernels/kernel.js";
import { type DType, decode, encode } from "../src/tensor/dtype.js";
import { runKernels, type TestSlot } from "./cpu-plan.js";

const backends = [1, 2, 3].map((threadCount) => createCpuBackend({ environment: nodeEnvironment(), threadCount, soloNanoseconds: 0 }));
afterAll(() => {
  for (const backend of backends) backend.dispose();
});

function values(count: number, seed: number, dtype: DType = "f32"): number[] {
  let state = seed;
  const raw = Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
  return Array.from(decode(encode(raw, dtype), dtype));
}

interface Row {
  readonly rows: number;
  readonly classes: number;
  readonly width: number;
  readonly weightType?: DType;
  /** Whether the label of a row is -100; some are where it is not given. */
  readonly isIgnored?: (row: number) => boolean;
}

/** Everything in float64: losses, logsumexp, dHidden, dWeight. */
function reference({ rows, classes, width }: Row, hidden: number[], weight: number[], labels: number[], dLoss: number[]): number[][] {
  const [loss, total, dHidden, dWeight] = [rows, rows, rows * width, classes * width].map((count) => new Array<number>(count).fill(0)) as [
    number[],
    number[],
    number[],
    number[],
  ];
  for (let row = 0; row < rows; row++) {
    const logits = Array.from({ length: classes }, (_, c) => {
      let sum = 0;
      for (let i = 0; i < width; i++) sum += (hidden[row * width + i] ?? 0) * (weight[c * width + i] ?? 0);
      return sum;
    });
    const largest = logits.reduce((a, b) => Math.max(a, b));
    const all = largest + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - largest), 0));
    const label = labels[row] ?? 0;
    total[row] = all;
    loss[row] = label === -100 ? 0 : all - (logits[label] ?? 0);
    const share = label === -100 ? 0 : (dLoss[row] ?? 0);
    for (const [c, x] of logits.entries()) {
      const d = (Math.exp(x - all) - Number(c === label)) * share;
      for (let i = 0; i < width; i++) {
        dHidden[row * width + i] = (dHidden[row * width + i] ?? 0) + d * (weight[c * width + i] ?? 0);
        dWeight[c * width + i] = (dWeight[c * width + i] ?? 0) + d * (hidden[row * width + i] ?? 0);
      }
    }
  }
  return [loss, total, dHidden, dWeight];
}

const cases: Readonly<Record<string, Row>> = {
  "one row, one class": { rows: 1, classes: 1, width: 1 },
  "odd sizes": { rows: 7, classes: 13, width: 5 },
  "bf16 weights": { rows: 9, classes: 33, width: 17, weightType: "bf16" },
  // 8 MiB of logits at a time.
  "two chunks of rows, the second shorter": { rows: 131, classes: 17011, width: 3 },
  // 8 MiB of weight at a time.
  "two parts of the classes": { rows: 2, classes: 263, width: 8209 },
  "no label counts": { rows: 150, classes: 40, width: 24, isIgnored: () => true },
  "all labels count": { rows: 150, classes: 40, width: 24, isIgnored: () => false },
  "only the first row's label counts": { rows: 150, classes: 40, width: 24, isIgnored: (row) => row > 0 },
  "only the last row's label counts": { rows: 150, classes: 40, width: 24, isIgnored: (row) => row < 149 },
  "only some labels in the middle count": { rows: 300, classes: 517, width: 24, isIgnored: (row) => row < 70 || row > 207 },
  "labels count at random": { rows: 300, classes: 517, width: 24, isIgnored: (row) => ((row * 2654435761) >>> 15) % 2 === 0 },
  // 128 rows are a chunk.
  "labels that count fill one of three chunks": { rows: 260, classes: 17011, width: 3, isIgnored: (row) => row % 3 > 0 },
  "labels that count are just one chunk": { rows: 140, classes: 17011, width: 3, isIgnored: (row) => row < 68 },
};

for (const [name, row] of Object.entries(cases)) {
  test(`linear cross-entropy and its gradients: ${name}`, async () => {
    const { rows, classes, width, weightType = "f32", isIgnored = (i) => i % 5 === 3 } = row;
    const hidden = values(rows * width, 1);
    const weight = values(classes * width, 2, weightType);
    const labels = Array.from({ length: rows }, (_, i) => (isIgnored(i) ? -100 : (i * 7919) % classes));
    const dLoss = values(rows, 3);
    const [loss, total, dHidden, dWeight] = reference(row, hidden, weight, labels, dLoss) as [number[], number[], number[], number[]];
    const shapes = { hidden: [rows, width], weight: [classes, width], perRow: [rows] };
    const composite = (what: string, inputs: number[], outputs: number[], needsWeight: boolean): CompositeKernel => ({
      kind: "composite",
      name: `linearCrossEntropy${what}`,
      attributes: { needsWeight },
      inputs,
      inputShapes: inputs.map((slot) => (slot === 0 ? shapes.hidden : slot === 1 ? shapes.weight : shapes.perRow)),
      outputs,
      outputShapes: outputs.map((slot) => (slot === 6 ? shapes.hidden : slot === 7 ? shapes.weight : shapes.perRow)),
    });
    const slots: TestSlot[] = [
      { dtype: "f32", values: hidden },
      { dtype: weightType, values: weight },
      { dtype: "i32", values: labels },
      { dtype: "f32", values: dLoss },
      { dtype: "f32", values: loss.map(() => Number.NaN) },
      { dtype: "f32", values: total.map(() => Number.NaN) },
      { dtype: "f32", values: dHidden.map(() => Number.NaN) },
      { dtype: "f32", values: dWeight.map(() => Number.NaN) },
    ];
    const ways: Readonly<Record<string, readonly CompositeKernel[]>> = {
      apart: [composite("", [0, 1, 2], [4, 5], false), composite("Backward", [0, 1, 2, 5, 3], [6, 7], true)],
      together: [composite("Training", [0, 1, 2, 3], [4, 5, 6, 7], true)],
      "together, weight frozen": [composite("Training", [0, 1, 2, 3], [4, 5, 6], false)],
    };
    // Sums of f32 products: rounding grows as the square root of their number, times the largest terms.
    const close = (got: number[] | undefined, wanted: number[], terms: number, what: string): void => {
      const size = wanted.reduce((most, x) => Math.max(most, Math.abs(x)), 1);
      const worst = wanted.reduce((most, x, i) => Math.max(most, Math.abs(x - (got?.[i] ?? Number.NaN))), 0);
      expect(worst / size, what).toBeLessThan(4e-7 * Math.sqrt(terms + 4));
    };
    for (const [way, kernels] of Object.entries(ways)) {
      let first: number[][] | null = null;
      for (const backend of backends) {
        for (const kernel of kernels) expect(backend.supports(kernel)).toBe(true);
        const got = await runKernels(backend, kernels, slots);
        const isSame = first?.every((slot, i) => slot.every((x, j) => Object.is(x, got[i]?.[j]))) ?? true;
        expect(isSame, `${way}: ${backend.description} gives other bits`).toBe(true);
        first ??= got;
      }
      close(first?.[4], loss, width + classes, `${way}: loss`);
      // Of rows that do not count, logsumexp is only what makes no probability of them.
      const counted = (x: number, i: number): number => (isIgnored(i) ? Math.exp(1e3 - x) : x);
      close(
        first?.[5]?.map(counted),
        total.map((x, i) => (isIgnored(i) ? 0 : x)),
        width + classes,
        `${way}: logsumexp`,
      );
      close(first?.[6], dHidden, classes + width, `${way}: dHidden`);
      if (way !== "together, weight frozen") close(first?.[7], dWeight, rows + width, `${way}: dWeight`);
    }
  });
}
