import { toF16Bits } from "../../tensor/dtype.js";
import type { BlockType } from "../block-type.js";

/** How numbers become blocks of a type. */
export interface BlockQuantizer {
  readonly type: BlockType;
  /** The largest magnitude that the block's scales in f16 reach. */
  readonly mostMagnitude: number;
  /** Writes the block of the `blockSize` finite numbers from `from` on into the bytes from `to` on, which are 0. */
  encode(values: Float32Array, from: number, packed: Uint8Array, to: number): void;
}

/** The largest finite f16. */
export const mostHalf = 65504;

/** Writes a scale as f16, low byte first. */
export function putHalf(packed: Uint8Array, to: number, value: number): void {
  const bits = toF16Bits(value);
  packed[to] = bits & 255;
  packed[to + 1] = bits >>> 8;
}

/** 1 / scale in f32; 0 for a scale of which nothing is left, whose block is 0 whatever its codes are. */
export function inverseOf(scale: number): number {
  const inverse = Math.fround(1 / scale);
  return Number.isFinite(inverse) ? inverse : 0;
}
