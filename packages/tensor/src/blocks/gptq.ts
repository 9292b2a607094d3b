import { arange } from "../graph/create.js";
import type { Tensor } from "../graph/tensor.js";
import { gather } from "../ops/gather.js";
import { streamed } from "./bits.js";

/** A weight [outputs, inputs] as GPTQ's tools store it; several of one shape where axes stand in front of all. */
export interface GptqWeight {
  /** i32 or u32 [..., inputs · bits / 32, outputs]: a stream of bits down the rows, lowest first. */
  readonly qweight: Tensor;
  /** i32 or u32 [..., groups, outputs · bits / 32]: a stream of bits along the row. */
  readonly qzeros: Tensor;
  /** [..., groups, outputs], floats. */
  readonly scales: Tensor;
  /** i32 [..., inputs]: the group of each input (`g_idx`). Where there is none, groups are of equal size and follow one another. */
  readonly groupOf?: Tensor;
  /** 2, 3, 4 or 8. */
  readonly bits: number;
  /** In files of version 1 (`checkpoint_format` "gptq", or none) a zero point is stored less one. */
  readonly version: 1 | 2;
}

/** scale · (q − zero) of the group of each input, f32 [..., outputs, inputs]. GPTQ (Frantar et al. 2022); AutoGPTQ and GPTQModel. */
export function gptqValues({ qweight, qzeros, scales, groupOf, bits, version }: GptqWeight): Tensor {
  const codes = streamed(qweight.cast("u32").transpose(), bits).cast("f32");
  const zeros = streamed(qzeros.cast("u32"), bits)
    .cast("f32")
    .add(version === 1 ? 1 : 0);
  const outer = scales.shape.slice(0, -2);
  const [groups = 1, outputs = 0] = scales.shape.slice(-2);
  const inputs = codes.shape.at(-1) ?? 0;
  if (!groupOf) {
    const ofGroup = (perGroup: Tensor): Tensor => perGroup.transpose().reshape([...outer, outputs, groups, 1]);
    return codes
      .reshape([...outer, outputs, groups, inputs / groups])
      .sub(ofGroup(zeros))
      .mul(ofGroup(scales))
      .reshape([...outer, outputs, inputs]);
  }
  // The groups of all weights in one row of them.
  const count = groupOf.size / inputs;
  const first = arange(count, { device: groupOf.device }).mul(groups).reshape([count, 1]);
  const row = groupOf.reshape([count, inputs]).add(first);
  const ofInput = (perGroup: Tensor): Tensor =>
    gather(perGroup.reshape([count * groups, outputs]), row, 0)
      .transpose()
      .reshape([...outer, outputs, inputs]);
  return codes.sub(ofInput(zeros)).mul(ofInput(scales));
}
