import type { Tensor } from "@lowrank/tensor";
import { at, type Case, dot, type Family, input } from "./family.js";

/** x [m, k] in f32 times a weight [k, n] stored in 16 bits, f32 arithmetic. */
function storedMatmul(m: number, n: number, k: number, dtype: "bf16" | "f16"): Case {
  return {
    name: `${m}x${k}x${n}, ${dtype} weight`,
    size: 2 * m * n * k,
    curve: dtype,
    flops: 2 * m * n * k,
    bytes: 4 * m * k + 2 * k * n + 4 * m * n,
    inputs: [input(0, [m, k]), input(1, [k, n], dtype)],
    build: ([x, weight]) => [(x as Tensor).matmul(weight as Tensor)],
    reference: ([x, weight], positions) =>
      positions.map((position) => {
        const [row, column] = [Math.floor(position / n), position % n];
        return dot(
          k,
          (i) => at(x, row * k + i),
          (i) => at(weight, i * n + column),
        );
      }),
    tolerance: 1e-6 + 4e-7 * Math.sqrt(k),
    task: null,
  };
}

/** A weight in 16 bits widened to f32, alone. */
function castCase(size: number, dtype: "bf16" | "f16"): Case {
  return {
    name: `${dtype} to f32, ${size}`,
    size,
    curve: `${dtype} alone`,
    flops: 0,
    bytes: 6 * size,
    inputs: [input(0, [size], dtype)],
    build: ([x]) => [(x as Tensor).cast("f32")],
    reference: ([x], positions) => positions.map((position) => at(x, position)),
    tolerance: 0,
    task: null,
  };
}

/** Weights stored in 16 bits: widened, and in products. */
export const dequantize: Family = {
  name: "dequantize",
  sizeLabel: "FLOP, or elements",
  cases: (isQuick) =>
    (["bf16", "f16"] as const).flatMap((dtype) =>
      isQuick
        ? [storedMatmul(16, 64, 128, dtype), castCase(2 ** 14, dtype)]
        : [
            storedMatmul(1, 2304, 768, dtype),
            storedMatmul(256, 768, 768, dtype),
            storedMatmul(1024, 2304, 768, dtype),
            castCase(2 ** 20, dtype),
          ],
    ),
};
