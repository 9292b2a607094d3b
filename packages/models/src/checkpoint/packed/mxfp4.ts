import { mxfp4Scales, mxfp4Table, mxfp4Values, type Shape } from "@lowrank/tensor";
import { bytesPart, numbersPart, type PackedPart, packedWeight } from "../stored/packed-weight.js";
import { entryOf, type Place } from "../stored/stored.js";
import { type DefineMethod, damaged, partOf } from "./method.js";
import { checkPart } from "./parts.js";

/** MXFP4's codes and scales as parts of a weight [...outer, columns]. */
export function mxfp4Parts(codes: Place, scales: Place, outer: Shape, columns: number): Record<"codes" | "scales" | "table", PackedPart> {
  return {
    codes: bytesPart(codes, [...outer, columns / 2]),
    scales: bytesPart(scales, [...outer, columns / 32], { dtype: "bf16", bits: mxfp4Scales }),
    table: numbersPart(mxfp4Table),
  };
}

/**
 * MXFP4 as transformers stores gpt-oss's experts: `…_blocks` u8 [experts, out, in / 32, 16] and `…_scales` u8 [experts, out, in / 32] in place of a weight
 * [experts, in, out]. OCP Microscaling Formats 1.0; integrations/mxfp4.py of transformers.
 */
export const mxfp4: DefineMethod = () => ({
  split(name) {
    const [, weight, part] = /^(.+)_(blocks|scales)$/.exec(name) ?? [];
    return weight === undefined || part === undefined ? null : { weight, part };
  },
  async pack(parts, weight) {
    const [blocks, scales] = [partOf(parts, "blocks", weight), partOf(parts, "scales", weight)];
    const { shape } = entryOf(blocks);
    const [groups = 0, bytes] = shape.slice(-2);
    const outer = shape.slice(0, -2);
    if (bytes !== 16 || outer.length < 2) throw damaged(blocks, `has the shape ${shape.join(" x ")}, not [experts, out, in / 32, 16]`);
    checkPart(blocks, ["U8"]);
    checkPart(scales, ["U8"], [...outer, groups]);
    return packedWeight({
      place: blocks,
      shape: [...outer.slice(0, -1), groups * 32, outer.at(-1) ?? 0],
      type: "mxfp4",
      options: {},
      parts: mxfp4Parts(blocks, scales, outer, groups * 32),
      values: (held) => mxfp4Values(held).transpose(),
    });
  },
});
