import { CheckpointError, mlxAffineValues, mxfp4Values } from "@lowrank/tensor";
import * as z from "zod/mini";
import { checked, choice, field } from "../../schema.js";
import { packedWeight, plainPart } from "../stored/packed-weight.js";
import { entryOf, type StoredWeight } from "../stored/stored.js";
import { type DefineMethod, damaged, type Parts, partOf } from "./method.js";
import { mxfp4Parts } from "./mxfp4.js";
import { checkPart, floatDTypes } from "./parts.js";

// Layout: mlx/ops.cpp (quantize), mlx_lm/utils.py (quantize_model), and measurements on files that mlx_lm.convert wrote.

/** How one module is packed. */
const moduleFields = {
  bits: field("2, 3, 4, 5, 6 or 8", (value) => [2, 3, 4, 5, 6, 8].includes(value as number), 4),
  group_size: field("16, 32, 64 or 128", (value) => [16, 32, 64, 128].includes(value as number), 64),
  mode: choice(["affine", "mxfp4"], "affine"),
};
const moduleSchema = z.object(moduleFields);
type Module = z.output<typeof moduleSchema>;

/**
 * MLX as mlx-lm stores it: `weight` u32 with `scales`, and `biases` in mode "affine" (2 to 8 bits) but not in "mxfp4". A module without `scales` is not
 * quantised; single modules may have their own options, and for what these leave out MLX's defaults (nn.quantize), not those of all others. Embeddings and head are
 * quantised like the rest.
 */
export const mlx: DefineMethod = (config, path) => {
  const common = checked(moduleSchema, config, path, "quantization");
  const own = new Map<string, Module>();
  for (const [name, given] of Object.entries(config))
    if (typeof given === "object" && given !== null) own.set(name, checked(moduleSchema, given, path, `quantization.${name}`));
  return {
    split(name) {
      if (name.includes(".switch_mlp."))
        throw new CheckpointError(
          `${path}: mlx-lm has put the experts into one stack ("${name}"), which is not read. Take the checkpoint that it was converted from, with --quantize, or one in GGUF.`,
          path,
        );
      const [, module, part] = /^(.+)\.(scales|biases)$/.exec(name) ?? [];
      return module === undefined || part === undefined ? null : { weight: `${module}.weight`, part };
    },
    async pack(parts, weight) {
      const codes = partOf(parts, "", weight);
      const module = own.get(codes.name.replace(/\.weight$/, "")) ?? common;
      return module.mode === "mxfp4" ? inPowers(parts, weight) : affine(parts, weight, module);
    },
  };
};

/** Words of codes, a scale and a bias each group. */
function affine(parts: Parts, weight: string, { bits, group_size: group }: Module): StoredWeight {
  const [codes, scales, biases] = [partOf(parts, "", weight), partOf(parts, "scales", weight), partOf(parts, "biases", weight)];
  const { shape } = entryOf(codes);
  const outer = shape.slice(0, -1);
  const columns = ((shape.at(-1) ?? 0) * 32) / bits;
  checkPart(codes, ["U32"]);
  if (!Number.isInteger(columns) || columns % group !== 0)
    throw damaged(codes, `has rows of ${shape.at(-1)} words, which are no groups of ${group} numbers of ${bits} bits`);
  for (const part of [scales, biases]) checkPart(part, floatDTypes, [...outer, columns / group]);
  return packedWeight({
    place: codes,
    shape: [...outer, columns],
    type: `mlx ${bits} bits`,
    options: { bits },
    parts: { packed: plainPart(codes), scales: plainPart(scales), biases: plainPart(biases) },
    values: (held) => mlxAffineValues({ ...held, bits }),
  });
}

/** Words of eight codes, and the exponent of a power of two each 32 numbers. */
function inPowers(parts: Parts, weight: string): StoredWeight {
  const [codes, scales] = [partOf(parts, "", weight), partOf(parts, "scales", weight)];
  const { shape } = entryOf(codes);
  const outer = shape.slice(0, -1);
  const columns = (shape.at(-1) ?? 0) * 8;
  checkPart(codes, ["U32"]);
  checkPart(scales, ["U8"], [...outer, columns / 32]);
  return packedWeight({
    place: codes,
    shape: [...outer, columns],
    type: "mxfp4",
    options: {},
    parts: mxfp4Parts(codes, scales, outer, columns),
    values: mxfp4Values,
  });
}
