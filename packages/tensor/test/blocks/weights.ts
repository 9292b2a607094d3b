import {
  awqValues,
  type BlockType,
  blockTensor,
  blockTypes,
  type Device,
  fourBitValues,
  gptqValues,
  mlxAffineValues,
  mxfp4Tensor,
  nestedScales,
  rowwiseValues,
  type Tensor,
  tensor,
} from "@lowrank/tensor";

/** A weight [rows, columns] of every way in which blocks are kept, of random codes and small scales, the same on each device. */
export type BlockWeightMaker = (rows: number, columns: number, dev: Device) => Tensor;

/** Numbers of a linear congruence (Knuth's MMIX constants, cut to 32 bits). */
function random(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8;
}

function randomBytes(count: number, seed = 7): Uint8Array {
  const next = random(seed);
  return Uint8Array.from({ length: count }, () => next() & 255);
}

const bytes = (shape: readonly number[], dev: Device): Tensor =>
  tensor(randomBytes(shape.reduce((a, b) => a * b, 1)), { dtype: "u8", shape, device: dev });
const words = (shape: readonly number[], dev: Device): Tensor =>
  tensor(new Uint32Array(randomBytes(4 * shape.reduce((a, b) => a * b, 1)).buffer), { dtype: "u32", shape, device: dev });
/** Floats of either sign between 2^-5 and 3 · 2^-5. */
function floats(shape: readonly number[], dev: Device, seed = 3): Tensor {
  const next = random(seed);
  const values = Float32Array.from(
    { length: shape.reduce((a, b) => a * b, 1) },
    () => (((next() % 512) + 256) / 8192) * (next() & 1 ? 1 : -1),
  );
  return tensor(values, { shape, device: dev });
}

/** Blocks of random bytes whose f16 scales lie between 2^-8 and 2^-6, and powers of two between 2^-8 and 2^-4. */
function someBlocks(type: BlockType, rows: number, columns: number): Uint8Array {
  const made = randomBytes((rows * columns * type.blockBytes) / type.blockSize);
  for (let block = 0; block < made.length; block += type.blockBytes)
    for (const { at, as } of Object.values(type.fields)) {
      if (as === "f16") made[block + at + 1] = 0x1c + ((made[block + at + 1] ?? 0) & 7) + ((made[block + at + 1] ?? 0) & 128);
      if (as === "e8m0") made[block + at] = 120 + ((made[block + at] ?? 0) % 5);
    }
  return made;
}

const code = (dev: Device): Tensor =>
  tensor(
    Float32Array.from({ length: 16 }, (_, i) => Math.sin(i - 8)),
    { device: dev },
  );

/** Scales that are bytes themselves. */
export function nested(count: number, dev: Device): Tensor {
  return nestedScales({
    absmax: bytes([count], dev),
    code: floats([256], dev),
    nestedAbsmax: floats([Math.ceil(count / 256)], dev),
    offset: floats([1], dev),
    blockSize: 256,
  });
}

function fourBits(scales: (count: number, dev: Device) => Tensor): BlockWeightMaker {
  return (rows, columns, dev) => {
    const [shape, blockSize] = [[rows, columns], 64];
    const absmax = scales(Math.ceil((rows * columns) / blockSize), dev);
    return fourBitValues({ packed: bytes([Math.ceil((rows * columns) / 2)], dev), code: code(dev), absmax, blockSize, shape });
  };
}

const mlx =
  (bits: number, group: number): BlockWeightMaker =>
  (rows, columns, dev) =>
    mlxAffineValues({
      packed: words([rows, (columns * bits) / 32], dev),
      scales: floats([rows, columns / group], dev),
      biases: floats([rows, columns / group], dev, 5),
      bits,
    });

const gptq =
  (bits: number, group: number, order: "in order" | "mixed"): BlockWeightMaker =>
  (rows, columns, dev) =>
    gptqValues({
      qweight: words([(columns * bits) / 32, rows], dev),
      qzeros: words([columns / group, (rows * bits) / 32], dev),
      scales: floats([columns / group, rows], dev),
      // Inputs in another order than their groups.
      ...(order === "mixed" && {
        groupOf: tensor(
          Int32Array.from({ length: columns }, (_, i) => (i * 7) % (columns / group)),
          { dtype: "i32", device: dev },
        ),
      }),
      bits,
      version: 1,
    });

const awq =
  (group: number): BlockWeightMaker =>
  (rows, columns, dev) =>
    awqValues({
      qweight: words([columns, rows / 8], dev),
      qzeros: words([columns / group, rows / 8], dev),
      scales: floats([columns / group, rows], dev),
    });

/** Every way by name. Columns are a multiple of 256, rows one of 32. */
export const blockWeights: ReadonlyMap<string, BlockWeightMaker> = new Map<string, BlockWeightMaker>([
  ...[...blockTypes].map(
    ([name, type]) =>
      [
        name,
        (rows: number, columns: number, dev: Device) => blockTensor(type, someBlocks(type, rows, columns), [rows, columns], dev),
      ] as const,
  ),
  [
    "MXFP4 whose codes are neighbours",
    (rows, columns, dev) =>
      mxfp4Tensor(
        randomBytes((rows * columns) / 2),
        randomBytes((rows * columns) / 32).map((e) => 120 + (e % 5)),
        [rows, columns],
        dev,
      ),
  ],
  ["bitsandbytes' 4 bits", fourBits((count, dev) => floats([count], dev))],
  ["bitsandbytes' 4 bits, nested", fourBits(nested)],
  ["LLM.int8()", (rows, columns, dev) => rowwiseValues(bytes([rows, columns], dev), floats([rows], dev))],
  ["MLX affine, 4 bits in groups of 64", mlx(4, 64)],
  ["MLX affine, 8 bits in groups of 32", mlx(8, 32)],
  ["MLX affine, 3 bits in groups of 128", mlx(3, 128)],
  ["GPTQ, 4 bits in groups of 64", gptq(4, 64, "mixed")],
  ["GPTQ, 8 bits in groups of 128", gptq(8, 128, "mixed")],
  ["GPTQ, 3 bits in groups of 64", gptq(3, 64, "mixed")],
  ["GPTQ, 4 bits in groups of 32, in order", gptq(4, 32, "in order")],
  ["GPTQ, 8 bits in groups of 128, in order", gptq(8, 128, "in order")],
  ["AWQ in groups of 64", awq(64)],
]);
