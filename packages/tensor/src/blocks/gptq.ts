import type { Tensor } from "../graph/tensor.js";
import { gather } from "../ops/gather.js";
import { streamed } from "./bits.js";

/** A weight [outputs, inputs] as GPTQ's tools store it. */
export interface GptqWeight {
  /** i32 or u32 [inputs · bits / 32, outputs]: a stream of bits down the rows, lowest first. */
  readonly qweight: Tensor;
  /** i32 or u32 [groups, outputs · bits / 32]: a stream of bits along the row. */
  readonly qzeros: Tensor;
  /** [groups, outputs], floats. */
  readonly scales: Tensor;
  /** i32 [inputs]: the group of each input (`g_idx`). */
  readonly groupOf: Tensor;
  /** 2, 3, 4 or 8. */
  readonly bits: number;
  /** In files of version 1 (`checkpoint_format` "gptq", or none) a zero point is stored less one. */
  readonly version: 1 | 2;
}

/** scale · (q − zero) of the group of each input, f32 [outputs, inputs]. GPTQ (Frantar et al. 2022); AutoGPTQ and GPTQModel. */
export function gptqValues({ qweight, qzeros, scales, groupOf, bits, version }: GptqWeight): Tensor {
  const codes = streamed(qweight.cast("u32").transpose(), bits).cast("f32");
  const zeros = streamed(qzeros.cast("u32"), bits)
    .cast("f32")
    .add(version === 1 ? 1 : 0);
  const ofInput = (perGroup: Tensor): Tensor => gather(perGroup, groupOf, 0).transpose();
  return codes.sub(ofInput(zeros)).mul(ofInput(scales));
}
