import { arange, concat, type Device, stack, type Tensor, tensor } from "@lowrank/tensor";

/** Numbers in a block that share a scale. */
export const blockSize = 32;

/** Bytes and scales of a weight of [rows, columns] in blocks, the same for the same seed. */
export interface BlockWeight {
  /** u8 [rows, blocks, 16]. */
  readonly packed: Tensor;
  /** f16 [rows, blocks, 1]. */
  readonly scales: Tensor;
  readonly rows: number;
  readonly columns: number;
}

export function blockWeight(rows: number, columns: number, dev: Device, seed = 1): BlockWeight {
  const blocks = columns / blockSize;
  let state = seed;
  const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8;
  const bytes = Uint8Array.from({ length: (rows * columns) / 2 }, () => next() & 255);
  const scales = Float32Array.from({ length: rows * blocks }, () => ((next() % 1000) - 500) / 2000);
  return {
    packed: tensor(bytes, { shape: [rows, blocks, blockSize / 2], dtype: "u8", device: dev }),
    scales: tensor(scales, { shape: [rows, blocks, 1], dtype: "f16", device: dev }),
    rows,
    columns,
  };
}

/** Ways to say (q − 8) · d. Byte j of a block holds numbers j and j + 16, as in GGUF's Q4_0, but where neighbours share a byte. */
export const unpackings: Record<string, (weight: BlockWeight) => Tensor> = {
  "halves of a block put side by side": ({ packed, scales, rows, columns }) =>
    concat([packed.and(15), packed.shiftRight(4)], 2)
      .cast("f32")
      .sub(8)
      .mul(scales)
      .reshape([rows, columns]),
  "bytes shifted by a counter": ({ packed, scales, rows, columns }) => {
    const blocks = columns / blockSize;
    const shifts = arange(2, { device: packed.device }).mul(4).cast("u32").reshape([1, 1, 2, 1]);
    const numbers = packed.reshape([rows, blocks, 1, 16]).shiftRight(shifts).and(15);
    return numbers.reshape([rows, blocks, blockSize]).cast("i32").sub(8).cast("f32").mul(scales).reshape([rows, columns]);
  },
  "remainders and quotients": ({ packed, scales, rows, columns }) => {
    const bytes = packed.cast("f32");
    const [low, high] = [bytes.mod(16), bytes.div(16).floor()];
    return concat([low, high], 2).sub(8).mul(scales.cast("f32")).reshape([rows, columns]);
  },
  "remainders and quotients of integers": ({ packed, scales, rows, columns }) =>
    concat([packed.mod(16), packed.intDivide(16)], 2)
      .cast("i32")
      .sub(8)
      .mul(scales)
      .reshape([rows, columns]),
  "neighbours in one byte": ({ packed, scales, rows, columns }) =>
    stack([packed.and(15), packed.shiftRight(4)], 3)
      .reshape([rows, columns / blockSize, blockSize])
      .cast("f32")
      .sub(8)
      .mul(scales)
      .reshape([rows, columns]),
};
