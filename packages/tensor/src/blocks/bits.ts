import { arange } from "../graph/create.js";
import type { Tensor } from "../graph/tensor.js";
import { gather } from "../ops/gather.js";
import { concat, narrow } from "../ops/movement.js";

/**
 * Codes of `bits` bits out of bytes [..., n]: [..., n · 8 / bits], u32. In each run of `width` bytes come the lowest bits of all of them first, then
 * the next of all: with a width of 1 the codes of a byte are neighbours.
 */
export function planes(packed: Tensor, width: number, bits: 1 | 2 | 4): Tensor {
  const [count, mask] = [8 / bits, 2 ** bits - 1];
  const outer = packed.shape.slice(0, -1);
  const length = packed.shape.at(-1) ?? 0;
  const runs = packed.reshape([...outer, length / width, width]);
  // Two halves put side by side are what products read fastest.
  if (count === 2 && width > 1)
    return concat([runs.and(mask), runs.shiftRight(bits)], outer.length + 1).reshape([...outer, length * count]);
  const shifts = arange(count, { device: packed.device }).mul(bits).cast("u32").reshape([count, 1]);
  return runs
    .reshape([...outer, length / width, 1, width])
    .shiftRight(shifts)
    .and(mask)
    .reshape([...outer, length * count]);
}

/**
 * Codes of a stream of bits in u32 words [..., n], lowest bits first, which may run over the ends of words: [..., 32 n / bits], u32. Of 2, 4 and 8
 * bits any number of words, else a multiple of `bits`.
 */
export function streamed(words: Tensor, bits: number): Tensor {
  const [outer, length] = [words.shape.slice(0, -1), words.shape.at(-1) ?? 0];
  const mask = 2 ** bits - 1;
  const codes = [...outer, (length * 32) / bits];
  if (32 % bits === 0) {
    const shifts = arange(32 / bits, { device: words.device })
      .mul(bits)
      .cast("u32");
    return each(words).shiftRight(shifts).and(mask).reshape(codes);
  }
  const runs = words.reshape([...outer, length / bits, bits]);
  const position = arange(32, { device: words.device }).mul(bits);
  const [word, shift] = [position.shiftRight(5), position.and(31).cast("u32")];
  const isSplit = shift.add(bits).greater(32);
  const [low, high] = [gather(runs, word, -1), gather(runs, word.add(1).minimum(bits - 1), -1)];
  const above = isSplit.where(high.shiftLeft(complement(shift)), 0);
  return low.shiftRight(shift).or(above.cast("u32")).and(mask).reshape(codes);
}

/** 32 − shift, below 32. */
const complement = (shift: Tensor): Tensor => shift.xor(31).add(1).and(31);

/** Two's complement bytes as f32. */
export const signed = (x: Tensor): Tensor => x.xor(128).cast("f32").sub(128);

/** Codes [..., n] as f32 in groups that share a scale: [..., groups, n / groups]. */
export function grouped(codes: Tensor, groups: number): Tensor {
  const outer = codes.shape.slice(0, -1);
  return codes.cast("f32").reshape([...outer, groups, (codes.shape.at(-1) ?? 0) / groups]);
}

/** One scale a group, [..., groups], beside the numbers of the group: [..., groups, 1]. */
export const each = (scales: Tensor): Tensor => scales.reshape([...scales.shape, 1]);

/** Groups [..., groups, n] one after another: [..., groups · n]. */
export const joined = (groups: Tensor): Tensor =>
  groups.reshape([...groups.shape.slice(0, -2), (groups.shape.at(-2) ?? 1) * (groups.shape.at(-1) ?? 1)]);

/** The entry of each code in a table [n]; of several tables [count, n] in its own, where as many rows of codes, [count, ...], have one each. */
export function lookUp(table: Tensor, codes: Tensor): Tensor {
  const length = table.shape.at(-1) ?? 0;
  const count = table.size / Math.max(length, 1);
  const places = codes.cast("i32");
  const flat = table.reshape([table.size]);
  if (count <= 1) return gather(flat, places);
  const first = arange(count, { device: table.device })
    .mul(length)
    .reshape([count, ...codes.shape.slice(1).map(() => 1)]);
  return gather(flat, places.add(first));
}

/** Some elements of the last axis. */
export const part = (x: Tensor, start: number, stop: number): Tensor => narrow(x, x.rank - 1, start, stop - start);
