import { arange } from "../graph/create.js";
import type { Tensor } from "../graph/tensor.js";
import { each } from "./bits.js";

/** A weight [outputs, inputs] in 4 bits as AutoAWQ's "gemm" stores it; several of one shape where axes stand in front of all. */
export interface AwqWeight {
  /** i32 or u32 [..., inputs, outputs / 8]. */
  readonly qweight: Tensor;
  /** i32 or u32 [..., groups, outputs / 8]. */
  readonly qzeros: Tensor;
  /** [..., groups, outputs], floats. */
  readonly scales: Tensor;
}

/** Codes [..., 8 · words]: of the eight in a word the even ones lie in the low half, the odd ones in the high. */
function interleaved(words: Tensor): Tensor {
  const output = arange(8, { device: words.device });
  const shifts = output.shiftRight(1).mul(4).add(output.and(1).mul(16)).cast("u32");
  return each(words.cast("u32"))
    .shiftRight(shifts)
    .and(15)
    .cast("f32")
    .reshape([...words.shape.slice(0, -1), (words.shape.at(-1) ?? 0) * 8]);
}

/** scale · (q − zero) of each group of inputs, f32 [..., outputs, inputs]. AWQ (Lin et al. 2023). */
export function awqValues({ qweight, qzeros, scales }: AwqWeight): Tensor {
  const outer = qweight.shape.slice(0, -2);
  const inputs = qweight.shape.at(-2) ?? 0;
  const [groups = 1, outputs = 0] = scales.shape.slice(-2);
  const perGroup = (x: Tensor): Tensor => x.reshape([...outer, groups, 1, outputs]);
  return interleaved(qweight)
    .reshape([...outer, groups, inputs / groups, outputs])
    .sub(perGroup(interleaved(qzeros)))
    .mul(perGroup(scales))
    .reshape([...outer, inputs, outputs])
    .transpose();
}
