import { awqValues, CheckpointError } from "@lowrank/tensor";
import * as z from "zod/mini";
import { checked, field } from "../../schema.js";
import { packedWeight, plainPart } from "../stored/packed-weight.js";
import { entryOf } from "../stored/stored.js";
import { type DefineMethod, damaged, partOf } from "./method.js";
import { checkPart, floatDTypes } from "./parts.js";

// Layout: WQLinear_GEMM of AutoAWQ, packing_utils.py.

const fields = z.object({
  bits: field("4", (value) => value === 4, 4),
  version: field("gemm", (value) => typeof value === "string" && value.toLowerCase() === "gemm", "gemm"),
});

/** AWQ (Lin et al. 2023) in the layout "gemm" of AutoAWQ: `qweight`, `qzeros` and `scales` in place of `weight`. */
export const awq: DefineMethod = (config, path) => {
  const version = config["version"] ?? config["checkpoint_format"] ?? config["format"];
  checked(fields, { bits: config["bits"] ?? config["w_bit"], version }, path, "quantization_config");
  return {
    split(name) {
      const [, module, part] = /^(.+)\.(qweight|qzeros|scales)$/.exec(name) ?? [];
      return module === undefined || part === undefined ? null : { weight: `${module}.weight`, part };
    },
    async pack(parts, weight) {
      const [act] = parts.size === 1 ? parts.values() : [];
      // ScaledActivation, for families whose second projection comes right behind an activation.
      if (act && /\.act\.scales$/.test(act.name))
        throw new CheckpointError(
          `${act.file.name}: AutoAWQ divides activations by "${act.name}", which is not read. Take the checkpoint in bf16 with --quantize, or one in GPTQ or GGUF.`,
          act.file.name,
        );
      const [qweight, qzeros, scales] = [
        partOf(parts, "qweight", weight),
        partOf(parts, "qzeros", weight),
        partOf(parts, "scales", weight),
      ];
      const [inputs = 0, words = 0] = entryOf(qweight).shape;
      const [groups = 0] = entryOf(scales).shape;
      checkPart(qweight, ["I32", "U32"], [inputs, words]);
      checkPart(scales, floatDTypes, [groups, words * 8]);
      checkPart(qzeros, ["I32", "U32"], [groups, words]);
      if (!(groups > 0) || inputs % groups !== 0) throw damaged(scales, `has ${groups} groups for ${inputs} inputs`);
      return packedWeight({
        place: qweight,
        shape: [words * 8, inputs],
        type: "awq 4 bits",
        options: {},
        parts: { qweight: plainPart(qweight), qzeros: plainPart(qzeros), scales: plainPart(scales) },
        values: awqValues,
      });
    },
  };
};
