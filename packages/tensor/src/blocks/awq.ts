import { arange } from "../graph/create.js";
import type { Tensor } from "../graph/tensor.js";
import { each } from "./bits.js";

/** A weight [outputs, inputs] in 4 bits as AutoAWQ's "gemm" stores it. */
export interface AwqWeight {
  /** i32 or u32 [inputs, outputs / 8]. */
  readonly qweight: Tensor;
  /** i32 or u32 [groups, outputs / 8]. */
  readonly qzeros: Tensor;
  /** [groups, outputs], floats. */
  readonly scales: Tensor;
}

/** Codes [rows, 8 · words]: of the eight in a word the even ones lie in the low half, the odd ones in the high. */
function interleaved(words: Tensor): Tensor {
  const [rows = 0, count = 0] = words.shape;
  const output = arange(8, { device: words.device });
  const shifts = output.shiftRight(1).mul(4).add(output.and(1).mul(16)).cast("u32");
  return each(words.cast("u32"))
    .shiftRight(shifts)
    .and(15)
    .cast("f32")
    .reshape([rows, count * 8]);
}

/** scale · (q − zero) of each group of inputs, f32 [outputs, inputs]. AWQ (Lin et al. 2023). */
export function awqValues({ qweight, qzeros, scales }: AwqWeight): Tensor {
  const [inputs = 0] = qweight.shape;
  const [groups = 1, outputs = 0] = scales.shape;
  const perGroup = (x: Tensor): Tensor => x.reshape([groups, 1, outputs]);
  return interleaved(qweight)
    .reshape([groups, inputs / groups, outputs])
    .sub(perGroup(interleaved(qzeros)))
    .mul(perGroup(scales))
    .reshape([inputs, outputs])
    .transpose();
}
