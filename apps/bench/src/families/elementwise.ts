import type { Tensor } from "@lowrank/tensor";
import { at, type Case, type Family, f32Bytes, input } from "./family.js";

function gelu(x: number): number {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

function addCase(size: number): Case {
  return {
    name: `a + b, ${size}`,
    size,
    curve: "a + b",
    flops: size,
    bytes: f32Bytes(size, size, size),
    inputs: [input(0, [size]), input(1, [size])],
    build: ([a, b]) => [(a as Tensor).add(b as Tensor)],
    reference: ([a, b], positions) => positions.map((i) => at(a, i) + at(b, i)),
    tolerance: 1e-7,
    task: null,
  };
}

function geluCase(size: number): Case {
  return {
    name: `gelu(a b + c), ${size}`,
    size,
    curve: "gelu(a b + c)",
    // 2 in front; x³, two scalings and a sum, tanh, and three around it.
    flops: 11 * size,
    bytes: f32Bytes(size, size, size, size),
    inputs: [0, 1, 2].map((number) => input(number, [size])),
    build: ([a, b, c]) => [
      (a as Tensor)
        .mul(b as Tensor)
        .add(c as Tensor)
        .gelu("tanh"),
    ],
    reference: ([a, b, c], positions) => positions.map((i) => gelu(at(a, i) * at(b, i) + at(c, i))),
    tolerance: 1e-6,
    task: { task: "elementwise", size, seed: 0 },
  };
}

const chainLength = 16;

function chainCase(size: number): Case {
  return {
    name: `chain of ${chainLength}, ${size}`,
    size,
    curve: "chain",
    flops: 2 * chainLength * size,
    bytes: f32Bytes(size, size),
    inputs: [input(0, [size])],
    build: ([x]) => [Array.from({ length: chainLength }).reduce<Tensor>((y) => y.mul(0.75).add(0.125), x as Tensor)],
    reference: ([x], positions) =>
      positions.map((i) => {
        let y = at(x, i);
        for (let step = 0; step < chainLength; step++) y = y * 0.75 + 0.125;
        return y;
      }),
    tolerance: 1e-6,
    task: null,
  };
}

/** Elementwise work, alone and in fused chains. */
export const elementwise: Family = {
  name: "elementwise",
  sizeLabel: "elements",
  cases: (isQuick) =>
    (isQuick ? [2 ** 14] : [2 ** 12, 2 ** 16, 2 ** 20, 2 ** 22]).flatMap((size) => [addCase(size), geluCase(size), chainCase(size)]),
};
