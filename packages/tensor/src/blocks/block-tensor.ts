import { fromBytes, tensor } from "../graph/create.js";
import type { Device } from "../graph/device.js";
import type { Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { type Shape, sizeOf } from "../tensor/shape.js";
import type { BlockField, BlockType } from "./block-type.js";

/** A tensor that lies on a device as its blocks. */
export interface BlockTensor {
  readonly type: BlockType;
  readonly shape: Shape;
  /** Bytes that it takes on the device. */
  readonly bytes: number;
  /** The numbers, f32: an expression over the blocks, which fuses into what reads it. */
  values(): Tensor;
  dispose(): void;
}

/**
 * Blocks as a file holds them, `shape` outermost axis first, on a device. Throws ShapeError where rows are not whole blocks, or the bytes
 * are not as many as the shape needs.
 */
export function blockTensor(type: BlockType, packed: Uint8Array, shape: Shape, device: Device): BlockTensor {
  const outer = shape.slice(0, -1);
  const columns = shape.at(-1) ?? 0;
  const blocks = sizeOf(shape) / type.blockSize;
  if (columns % type.blockSize !== 0 || packed.byteLength !== blocks * type.blockBytes)
    throw new ShapeError(
      `blockTensor: ${packed.byteLength} bytes are not ${showShape(shape)} of ${type.name} (${type.blockBytes} bytes for each ${type.blockSize} of a row).`,
      [shape],
    );
  const parts: Record<string, Tensor> = {};
  for (const [name, field] of Object.entries(type.fields)) {
    const elements = field.as === "f16" ? field.bytes / 2 : field.bytes;
    const made = fieldBytes(packed, type.blockBytes, blocks, field);
    parts[name] = fromBytes(made, field.as === "e8m0" ? "bf16" : field.as, [...outer, columns / type.blockSize, elements], device);
  }
  for (const [name, values] of Object.entries(type.tables)) parts[name] = tensor(values, { device });
  const held = Object.values(parts);
  return {
    type,
    shape,
    bytes: held.reduce((sum, { storage }) => sum + (storage?.bytes ?? 0), 0),
    values: () => type.values(parts).reshape(shape),
    dispose: () => {
      for (const each of held) each.dispose();
    },
  };
}

/** One field of all blocks. */
function fieldBytes(packed: Uint8Array, blockBytes: number, blocks: number, { at, bytes, as }: BlockField): Uint8Array {
  if (as === "e8m0") {
    // 2^(e − 128) in bf16; the two smallest are subnormal.
    const powers = Uint16Array.from({ length: blocks }, (_, block) => powerBits(packed[block * blockBytes + at] ?? 0));
    return new Uint8Array(powers.buffer);
  }
  const made = new Uint8Array(blocks * bytes);
  for (let block = 0, to = 0; block < blocks; block++)
    for (let from = block * blockBytes + at, end = from + bytes; from < end; from++, to++) made[to] = packed[from] ?? 0;
  return made;
}

const powerBits = (e: number): number => (e < 2 ? 0x20 << e : (e - 1) << 7);
