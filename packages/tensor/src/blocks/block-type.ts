import type { Tensor } from "../graph/tensor.js";

/** Bytes of each block that mean one thing. In memory, those of all blocks lie together. */
export interface BlockField {
  /** Where they begin in the block, and how many there are. */
  readonly at: number;
  readonly bytes: number;
  /** `e8m0`: a power of two by its exponent alone, 2^(e − 128), which is kept as bf16 (equal, for 8 bits more a block). */
  readonly as: "u8" | "f16" | "e8m0";
}

/** A block-quantised type: where its fields lie, and the equation of its numbers as operations of a graph. */
export interface BlockType {
  /** The name that GGUF gives it: Q4_0, Q6_K, … */
  readonly name: string;
  readonly blockSize: number;
  readonly blockBytes: number;
  readonly fields: Readonly<Record<string, BlockField>>;
  /** Numbers that codes stand for, where the equation looks them up. */
  readonly tables: Readonly<Record<string, readonly number[]>>;
  /** Of fields [..., blocks, elements] and tables [entries]: the numbers, [..., blocks, blockSize], f32. */
  values(parts: Readonly<Record<string, Tensor>>): Tensor;
}

/** A field by its place: bytes from `at` on. */
export const bytes = (at: number, count: number): BlockField => ({ at, bytes: count, as: "u8" });
/** A scale in f16. */
export const half = (at: number): BlockField => ({ at, bytes: 2, as: "f16" });

/** Says a type; its parts are typed by the names of its fields and tables. */
export function blockType<Field extends string, Table extends string = never>(
  name: string,
  [blockSize, blockBytes]: readonly [numbers: number, bytes: number],
  fields: Readonly<Record<Field, BlockField>>,
  values: (parts: Readonly<Record<Field | Table, Tensor>>) => Tensor,
  tables = {} as Readonly<Record<Table, readonly number[]>>,
): BlockType {
  return { name, blockSize, blockBytes, fields, tables, values };
}
