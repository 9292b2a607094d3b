import type { Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { each, grouped, joined, streamed } from "./bits.js";

/** A weight as MLX's affine quantisation stores it. */
export interface MlxAffine {
  /** u32 [rows, columns · bits / 32]: a stream of bits along the row, lowest first. */
  readonly packed: Tensor;
  /** [rows, columns / group], floats; a scale may be negative. */
  readonly scales: Tensor;
  readonly biases: Tensor;
  /** 2, 3, 4, 5, 6 or 8. */
  readonly bits: number;
}

/** scale · q + bias of each group, f32 [rows, columns]. Throws ShapeError where groups do not divide the row. mlx.core.dequantize, mode "affine". */
export function mlxAffineValues({ packed, scales, biases, bits }: MlxAffine): Tensor {
  const groups = scales.shape.at(-1) ?? 0;
  const columns = ((packed.shape.at(-1) ?? 0) * 32) / bits;
  if (!Number.isInteger(columns) || !(groups > 0) || columns % groups !== 0)
    throw new ShapeError(
      `mlxAffineValues: ${showShape(packed.shape)} words of ${bits} bits a number are not ${groups} groups of a row. Give the module's own bits.`,
      [packed.shape, scales.shape],
    );
  return joined(grouped(streamed(packed, bits), groups).mul(each(scales)).add(each(biases)));
}
