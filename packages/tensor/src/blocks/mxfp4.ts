import { fromBytes, tensor } from "../graph/create.js";
import type { Device } from "../graph/device.js";
import type { Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { type Shape, sizeOf } from "../tensor/shape.js";
import { each, grouped, joined, lookUp, planes } from "./bits.js";
import { powerBits } from "./block-tensor.js";
import { packedTensor } from "./packed.js";
import { mxfp4 } from "./tables.js";

/** A weight in MXFP4 whose codes and scales are two tensors, as transformers, gpt-oss and MLX store it. */
export interface Mxfp4Weight {
  /** u8 [..., columns / 2]: two codes a byte, the first in the low half. */
  readonly codes: Tensor;
  /** bf16 [..., columns / 32]: 2^(s − 128), whose bits are `mxfp4Scales[s]`. */
  readonly scales: Tensor;
  /** f32 [16]: `mxfp4Table`; or [count, 16], one for each of the outermost parts. */
  readonly table: Tensor;
}

/** What the codes stand for, doubled. */
export const mxfp4Table: readonly number[] = mxfp4.tables["t"] ?? [];
/** The bits of each scale in bf16. */
export const mxfp4Scales: Uint16Array = Uint16Array.from({ length: 256 }, (_, exponent) => powerBits(exponent));

/** 2^(s − 128) t[q], f32 [..., columns]. OCP Microscaling Formats 1.0, section 5.3.3, but that s = 255 is 2^128, as transformers and ggml read it. */
export function mxfp4Values({ codes, scales, table }: Mxfp4Weight): Tensor {
  return joined(grouped(lookUp(table, planes(codes, 1, 4)), scales.shape.at(-1) ?? 0).mul(each(scales)));
}

/**
 * A weight of [..., columns] of `blocks` u8 [..., columns / 32, 16] and `scales` u8 [..., columns / 32]. transformers gives its values with the last two
 * axes exchanged. Throws ShapeError where the bytes do not fit.
 */
export function mxfp4Tensor(blocks: Uint8Array, scales: Uint8Array, shape: Shape, device: Device): Tensor {
  const count = sizeOf(shape) / mxfp4.blockSize;
  if (scales.byteLength !== count || blocks.byteLength !== count * 16)
    throw new ShapeError(
      `mxfp4Tensor: ${blocks.byteLength} bytes of codes and ${scales.byteLength} scales are not ${showShape(shape)} (16 and 1 for each 32 of a row).`,
      [shape],
    );
  const outer = shape.slice(0, -1);
  const columns = shape.at(-1) ?? 0;
  const powers = Uint16Array.from(scales, (exponent) => mxfp4Scales[exponent] ?? 0);
  return packedTensor(
    mxfp4.name,
    {
      codes: fromBytes(blocks, "u8", [...outer, columns / 2], device),
      scales: fromBytes(new Uint8Array(powers.buffer), "bf16", [...outer, columns / 32], device),
      table: tensor(mxfp4Table, { device }),
    },
    mxfp4Values,
  );
}
