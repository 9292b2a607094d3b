import type { Tensor } from "@lowrank/tensor";
import { at, type Case, dot, type Family, f32Bytes, input } from "./family.js";

interface MatmulSizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** Which operands are stored transposed, left first: NN, NT, TN. */
  readonly layout?: "NN" | "NT" | "TN";
  readonly batch?: number;
  readonly curve: string;
}

/** One product as a case. */
export function matmulCase({ m, n, k, layout = "NN", batch = 1, curve }: MatmulSizes): Case {
  const [isAFlipped, isBFlipped] = [layout === "TN", layout === "NT"];
  const front = batch > 1 ? [batch] : [];
  return {
    name: `${batch > 1 ? `${batch} x ` : ""}${m}x${k}x${n} ${layout}`,
    size: 2 * batch * m * n * k,
    curve,
    flops: 2 * batch * m * n * k,
    bytes: f32Bytes(batch * m * k, batch * k * n, batch * m * n),
    inputs: [input(0, [...front, ...(isAFlipped ? [k, m] : [m, k])]), input(1, [...front, ...(isBFlipped ? [n, k] : [k, n])])],
    build: ([a, b]) => [
      (isAFlipped ? (a as Tensor).transpose() : (a as Tensor)).matmul(isBFlipped ? (b as Tensor).transpose() : (b as Tensor)),
    ],
    reference: ([a, b], positions) =>
      positions.map((position) => {
        const [matrix, row, column] = [Math.floor(position / (m * n)), Math.floor(position / n) % m, position % n];
        return dot(
          k,
          (i) => at(a, matrix * m * k + (isAFlipped ? i * m + row : row * k + i)),
          (i) => at(b, matrix * k * n + (isBFlipped ? column * k + i : i * n + column)),
        );
      }),
    // Rounding grows as √k; products are at most ¼.
    tolerance: 1e-6 + 4e-7 * Math.sqrt(k),
    task: { task: "matmul", m, n, k, seed: 0, transA: isAFlipped, transB: isBFlipped, ...(batch > 1 ? { batch } : {}) },
  };
}

/** Matrix products: square, as models have them, thin ones, batches, one row (decoding), and LoRA's rank-r pairs. */
export const matmul: Family = {
  name: "matmul",
  sizeLabel: "FLOP",
  cases: (isQuick) => {
    const square = (size: number, layout: "NN" | "NT" | "TN" = "NN"): MatmulSizes => ({
      m: size,
      n: size,
      k: size,
      layout,
      curve: `square ${layout}`,
    });
    const few = [
      square(128),
      square(256),
      { m: 1, n: 1152, k: 384, curve: "one row" },
      { m: 256, n: 8, k: 128, layout: "NT" as const, curve: "rank 8" },
    ];
    const many: MatmulSizes[] = [
      ...[64, 128, 256, 512, 1024].map((size) => square(size)),
      ...[128, 256, 512].flatMap((size) => [square(size, "NT"), square(size, "TN")]),
      { m: 1024, n: 2304, k: 768, curve: "model" },
      { m: 1024, n: 512, k: 128, curve: "model" },
      { m: 1024, n: 384, k: 1536, curve: "model" },
      { m: 8192, n: 64, k: 64, curve: "tall" },
      { m: 64, n: 8192, k: 64, curve: "wide" },
      { m: 64, n: 64, k: 8192, curve: "deep" },
      { m: 128, n: 128, k: 32, batch: 32, layout: "NT", curve: "batched" },
      { m: 128, n: 32, k: 128, batch: 32, curve: "batched" },
      { m: 1, n: 1152, k: 384, curve: "one row" },
      { m: 1, n: 2304, k: 768, curve: "one row" },
      { m: 1, n: 8192, k: 384, layout: "NT", curve: "one row" },
      { m: 1024, n: 8, k: 384, layout: "NT", curve: "rank 8" },
      { m: 1024, n: 384, k: 8, layout: "NT", curve: "rank 8" },
      { m: 8, n: 384, k: 1024, layout: "TN", curve: "rank 8" },
    ];
    return (isQuick ? few : many).map(matmulCase);
  },
};
