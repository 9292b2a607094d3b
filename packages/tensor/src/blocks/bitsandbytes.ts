import { arange } from "../graph/create.js";
import type { Tensor } from "../graph/tensor.js";
import { gather } from "../ops/gather.js";
import { stack } from "../ops/movement.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { type Shape, sizeOf } from "../tensor/shape.js";
import { lookUp, signed } from "./bits.js";

/** A weight in 4 bits as bitsandbytes stores it, nf4 and fp4 alike: they differ in their 16 values. */
export interface FourBitWeight {
  /** u8, two codes a byte, the first in the high half; ⌈n / 2⌉ of them, in any shape. */
  readonly packed: Tensor;
  /** f32 [16]: what each code stands for (`quant_map`); or [count, 16], one table for each of so many outermost parts of the weight. */
  readonly code: Tensor;
  /** f32, one a block: the largest magnitude. Of nested ones what `nestedScales` gives. */
  readonly absmax: Tensor;
  /** Numbers of a block. Blocks follow the numbers row by row and run over the ends of rows. */
  readonly blockSize: number;
  readonly shape: Shape;
}

/**
 * code[q] · absmax of each block, f32, of the weight's shape. Throws ShapeError where there are too few codes or scales.
 * QLoRA (Dettmers et al. 2023), section 3; bitsandbytes' dequantize_4bit.
 */
export function fourBitValues({ packed, code, absmax, blockSize, shape }: FourBitWeight): Tensor {
  const size = sizeOf(shape);
  checkCounts("fourBitValues", shape, packed, Math.ceil(size / 2), absmax, Math.ceil(size / blockSize));
  const flat = packed.reshape([packed.size]);
  const codes = stack([flat.shiftRight(4), flat.and(15)], 1).reshape([packed.size * 2]);
  const columns = shape.at(-1) ?? 0;
  if (columns % blockSize === 0) {
    const blocks = [...shape.slice(0, -1), columns / blockSize];
    return lookUp(code, codes.reshape([...blocks, blockSize]))
      .mul(absmax.reshape([...blocks, 1]))
      .reshape(shape);
  }
  const tables = code.size / 16;
  return lookUp(code, codes.slice([0, size]).reshape([tables, size / tables]))
    .reshape([size])
    .mul(perBlock(absmax.reshape([absmax.size]), size, blockSize))
    .reshape(shape);
}

/** Scales that are quantised themselves, in 8 bits of the dynamic map (double quantisation). */
export interface NestedScales {
  /** u8 [..., scales]: one a block of the weight, of each of several where axes stand in front. */
  readonly absmax: Tensor;
  /** f32 [256] (`nested_quant_map`), or one for each of the outermost parts of the scales. */
  readonly code: Tensor;
  /** f32 [..., blocks]: one a block of the scales (`nested_absmax`). */
  readonly nestedAbsmax: Tensor;
  /** f32 [..., 1] (`nested_offset`). */
  readonly offset: Tensor;
  /** Scales of a block: 256. */
  readonly blockSize: number;
}

/** code[q] · nestedAbsmax + offset, f32 [..., scales]: one a block of the weight. QLoRA, section 3, "Double Quantization". */
export function nestedScales({ absmax, code, nestedAbsmax, offset, blockSize }: NestedScales): Tensor {
  const size = absmax.shape.at(-1) ?? 0;
  const count = absmax.size / Math.max(size, 1);
  checkCounts("nestedScales", absmax.shape, absmax, absmax.size, nestedAbsmax, count * Math.ceil(size / blockSize));
  return lookUp(code, absmax)
    .mul(perBlock(nestedAbsmax, size, blockSize))
    .add(offset);
}

/** (1 / 127) as bitsandbytes rounds it. */
const eighth = 0.007874015718698502;

/**
 * q · SCB / 127, f32 [rows, columns]: two's complement bytes u8 [rows, columns] and f32 [rows], the largest magnitude of each row.
 * LLM.int8() (Dettmers et al. 2022); bitsandbytes' int8_vectorwise_dequant.
 */
export function rowwiseValues(quantized: Tensor, scb: Tensor): Tensor {
  const [rows = 0] = quantized.shape;
  return signed(quantized)
    .mul(scb.reshape([rows, 1]))
    .mul(eighth);
}

/** The scale of each of so many numbers, [..., blocks] → [..., size]. */
const perBlock = (scales: Tensor, size: number, blockSize: number): Tensor =>
  gather(scales, arange(size, { device: scales.device }).intDivide(blockSize), -1);

function checkCounts(what: string, shape: Shape, codes: Tensor, codeBytes: number, scales: Tensor, scaleCount: number): void {
  if (codes.size === codeBytes && scales.size === scaleCount) return;
  throw new ShapeError(
    `${what}: ${showShape(shape)} needs ${codeBytes} bytes of codes and ${scaleCount} scales, and there are ${codes.size} and ${scales.size}.`,
    [codes.shape, scales.shape],
  );
}
