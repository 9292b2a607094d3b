import { fromStorage, tensor } from "../graph/create.js";
import type { Device } from "../graph/device.js";
import { Storage } from "../graph/storage.js";
import type { Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { type Shape, sizeOf } from "../tensor/shape.js";
import type { BlockField, BlockType } from "./block-type.js";
import { packedTensor } from "./packed.js";

/** Fills the blocks of a tensor on a device, from one source or several, a part at a time. */
export interface BlockWriter {
  readonly type: BlockType;
  /** Blocks that the tensor has. */
  readonly blockCount: number;
  /**
   * Puts whole blocks, as files hold them, where the tensor's block number `at` is. Rows follow one another, so that rows in another order, and
   * pieces of a tensor, are blocks written elsewhere. Throws ShapeError for parts of blocks and for what lies outside.
   */
  write(packed: Uint8Array, at: number): void;
  /** The tensor, once each block was written. Throws ShapeError where some are missing. */
  finish(): Tensor;
  /** Gives the memory back where the tensor is not to be. */
  dispose(): void;
}

/** Blocks that are taken apart at a time: few enough that each field finds them in a cache. */
const blocksAtOnce = 16384;

/** The memory of a packed tensor, by fields, and the tensor itself once it is filled. Throws ShapeError where rows are not whole blocks. */
function begun(type: BlockType, shape: Shape, device: Device) {
  const columns = shape.at(-1) ?? 0;
  if (columns % type.blockSize !== 0)
    throw new ShapeError(`blockTensor: rows of ${showShape(shape)} are not whole blocks of ${type.name}, of ${type.blockSize} numbers.`, [
      shape,
    ]);
  const blockCount = sizeOf(shape) / type.blockSize;
  const fieldShape = (field: BlockField): Shape => [...shape.slice(0, -1), columns / type.blockSize, elementsOf(field)];
  const fields = Object.entries(type.fields).map(([name, field]) => {
    const storage = new Storage(device, field.as === "e8m0" ? "bf16" : field.as, blockCount * elementsOf(field));
    return { name, field, storage };
  });
  const tensorOf = (): Tensor => {
    const parts: Record<string, Tensor> = {};
    for (const { name, field, storage } of fields) parts[name] = fromStorage(storage, fieldShape(field));
    for (const [name, values] of Object.entries(type.tables)) parts[name] = tensor(values, { device });
    return packedTensor(type.name, parts, (held) => type.values(held).reshape(shape));
  };
  return { blockCount, fields, tensorOf };
}

/** A packed tensor without memory or values yet, for planning. Throws ShapeError where rows are not whole blocks. */
export const blockOutline = (type: BlockType, shape: Shape, device: Device): Tensor => begun(type, shape, device).tensorOf();

/** Begins a packed tensor of a shape, outermost axis first. Throws ShapeError where rows are not whole blocks. */
export function blockWriter(type: BlockType, shape: Shape, device: Device): BlockWriter {
  const { blockCount, fields, tensorOf } = begun(type, shape, device);
  let written = 0;
  return {
    type,
    blockCount,
    write(packed, at) {
      const count = packed.byteLength / type.blockBytes;
      if (!Number.isInteger(count) || !Number.isInteger(at) || at < 0 || at + count > blockCount)
        throw new ShapeError(
          `blockTensor: ${packed.byteLength} bytes at block ${at} are not among the ${blockCount} of ${showShape(shape)} of ${type.name} (${type.blockBytes} bytes for each ${type.blockSize} of a row).`,
          [shape],
        );
      for (let done = 0; done < count; done += blocksAtOnce) {
        const blocks = Math.min(blocksAtOnce, count - done);
        const part = packed.subarray(done * type.blockBytes, (done + blocks) * type.blockBytes);
        for (const { field, storage } of fields) writeField(part, type.blockBytes, field, storage, at + done);
      }
      written += count;
    },
    finish() {
      if (written !== blockCount)
        throw new ShapeError(`blockTensor: ${written} of the ${blockCount} blocks of ${showShape(shape)} were written.`, [shape]);
      return tensorOf();
    },
    dispose() {
      for (const { storage } of fields) storage.dispose();
    },
  };
}

/**
 * Blocks as a file holds them, `shape` outermost axis first, as a packed tensor. Throws ShapeError where rows are not whole blocks, or the bytes
 * are not as many as the shape needs.
 */
export function blockTensor(type: BlockType, packed: Uint8Array, shape: Shape, device: Device): Tensor {
  if (packed.byteLength * type.blockSize !== sizeOf(shape) * type.blockBytes)
    throw new ShapeError(
      `blockTensor: ${packed.byteLength} bytes are not ${showShape(shape)} of ${type.name} (${type.blockBytes} bytes for each ${type.blockSize} of a row).`,
      [shape],
    );
  const writer = blockWriter(type, shape, device);
  writer.write(packed, 0);
  return writer.finish();
}

function elementsOf({ as, bytes }: BlockField): number {
  return as === "f16" ? bytes / 2 : bytes;
}

/** One field of some blocks, from block `at` of its storage on. */
function writeField(packed: Uint8Array, blockBytes: number, field: BlockField, { device, buffer }: Storage, at: number): void {
  const blocks = packed.byteLength / blockBytes;
  const bytes = field.as === "e8m0" ? 2 : field.bytes;
  const made = device.backend.place?.(buffer, blocks * bytes, at * bytes);
  const target = made ?? new Uint8Array(blocks * bytes);
  if (field.as === "e8m0") {
    for (let block = 0; block < blocks; block++) {
      const bits = powerBits(packed[block * blockBytes + field.at] as number); // each block lies inside
      target[2 * block] = bits & 255;
      target[2 * block + 1] = bits >> 8;
    }
  } else takeField(packed, blockBytes, field, target);
  if (!made) device.backend.write(buffer, target, at * bytes);
}

/** Copies a field of each block, in the largest words that blocks, field and memory are made of; words of four bytes may lie anywhere in a block. */
function takeField(packed: Uint8Array, blockBytes: number, { at, bytes }: BlockField, target: Uint8Array): void {
  const fits = (size: number): boolean => [blockBytes, at, bytes, packed.byteOffset, target.byteOffset].every((n) => n % size === 0);
  if (bytes % 4 === 0 && target.byteOffset % 4 === 0 && !fits(4)) {
    const to = new Int32Array(target.buffer, target.byteOffset, target.byteLength / 4);
    const from = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
    if (bytes === 32) copyEights(from, to, blockBytes, at);
    else if (bytes === 16) copyFours(from, to, blockBytes, at);
    else copyApart(from, to, blockBytes, at, bytes);
    return;
  }
  const size = [4, 2].find(fits) ?? 1;
  const [stride, first, count] = [blockBytes / size, at / size, bytes / size];
  const words = <T>(Words: new (buffer: ArrayBufferLike, at: number, length: number) => T): [T, T] => [
    new Words(packed.buffer, packed.byteOffset, packed.byteLength / size),
    new Words(target.buffer, target.byteOffset, target.byteLength / size),
  ];
  if (size === 4) copyWords(...words(Uint32Array), stride, first, count);
  else if (size === 2) copyHalves(...words(Uint16Array), stride, first, count);
  else copyBytes(...words(Uint8Array), stride, first, count);
}

/** Words of which blocks are no multiple, as those of Q8_0 with 34 bytes: in halves it takes twice as long. */
function copyApart(from: DataView, to: Int32Array, stride: number, first: number, bytes: number): void {
  const all = to.length;
  for (let start = first, next = 0; next < all; start += stride)
    for (let at = start; at < start + bytes; at += 4, next++) to[next] = from.getInt32(at, true);
}

/** The same of eight words a block, as Q8_0 has: without a loop inside it takes a third of the time. */
function copyEights(from: DataView, to: Int32Array, stride: number, first: number): void {
  for (let at = first, next = 0; next < to.length; at += stride, next += 8) {
    to[next] = from.getInt32(at, true);
    to[next + 1] = from.getInt32(at + 4, true);
    to[next + 2] = from.getInt32(at + 8, true);
    to[next + 3] = from.getInt32(at + 12, true);
    to[next + 4] = from.getInt32(at + 16, true);
    to[next + 5] = from.getInt32(at + 20, true);
    to[next + 6] = from.getInt32(at + 24, true);
    to[next + 7] = from.getInt32(at + 28, true);
  }
}

/** And of four, as Q4_0 has. */
function copyFours(from: DataView, to: Int32Array, stride: number, first: number): void {
  for (let at = first, next = 0; next < to.length; at += stride, next += 4) {
    to[next] = from.getInt32(at, true);
    to[next + 1] = from.getInt32(at + 4, true);
    to[next + 2] = from.getInt32(at + 8, true);
    to[next + 3] = from.getInt32(at + 12, true);
  }
}

// Three times the same: a loop that has seen arrays of several classes takes twice to three times as long.

function copyWords(from: Uint32Array, to: Uint32Array, stride: number, first: number, count: number): void {
  for (let start = first, next = 0; next < to.length; start += stride)
    for (let i = start; i < start + count; i++, next++) to[next] = from[i] as number; // inside, by the count of blocks
}

function copyHalves(from: Uint16Array, to: Uint16Array, stride: number, first: number, count: number): void {
  for (let start = first, next = 0; next < to.length; start += stride)
    for (let i = start; i < start + count; i++, next++) to[next] = from[i] as number; // inside, by the count of blocks
}

function copyBytes(from: Uint8Array, to: Uint8Array, stride: number, first: number, count: number): void {
  for (let start = first, next = 0; next < to.length; start += stride)
    for (let i = start; i < start + count; i++, next++) to[next] = from[i] as number; // inside, by the count of blocks
}

/** 2^(e − 128) in bf16; the two smallest are subnormal. */
export const powerBits = (e: number): number => (e < 2 ? 0x20 << e : (e - 1) << 7);
