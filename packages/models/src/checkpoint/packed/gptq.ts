import { CheckpointError, gptqValues } from "@lowrank/tensor";
import * as z from "zod/mini";
import { checked, choice, field, isCount, shown } from "../../schema.js";
import { packedWeight, plainPart } from "../stored/packed-weight.js";
import { entryOf, type Place, type StoredWeight } from "../stored/stored.js";
import { type DefineMethod, damaged, type Parts, partOf } from "./method.js";
import { checkPart, floatDTypes, isOnlyZeros } from "./parts.js";

// Layout: qlinear_cuda_old.py of AutoGPTQ and qlinear/__init__.py of GPTQModel.

const fields = z.object({
  bits: field<number | null>("2, 3, 4 or 8", (value) => value === null || [2, 3, 4, 8].includes(value as number), null),
  group_size: field<number>("-1 or a positive integer", (value) => value === -1 || isCount(value), 128),
  checkpoint_format: choice(["gptq", "gptq_v2"], "gptq"),
  is_marlin_format: field("false", (value) => value === false, false),
  // GPTQModel's; each other one is another layout.
  pack_dtype: field("int32", (value) => value === "int32", "int32"),
  // GPTQModel's options of single modules, by regular expressions.
  dynamic: z.optional(z.unknown()),
});

/**
 * GPTQ (Frantar et al. 2022) as AutoGPTQ, GPTQModel and optimum store it: `qweight`, `qzeros`, `scales` and `g_idx` in place of `weight`. How many bits a
 * module has is told by its own tensors, since they may differ.
 */
export const gptq: DefineMethod = (config, path) => {
  const { format, ...given } = config;
  const said = checked(fields, { ...given, checkpoint_format: given["checkpoint_format"] ?? format }, path, "quantization_config");
  return {
    split(name) {
      const [, module, part] = /^(.+)\.(qweight|qzeros|scales|g_idx)$/.exec(name) ?? [];
      return module === undefined || part === undefined ? null : { weight: `${module}.weight`, part };
    },
    pack: (parts, weight) => weightOf(parts, weight, said),
    // AutoGPTQ wrote biases of zeros for layers that have none.
    isSpare: async (place, packed) =>
      place.name.endsWith(".bias") && packed.has(place.name.replace(/bias$/, "qweight")) && (await isOnlyZeros(place)),
  };
};

async function weightOf(parts: Parts, weight: string, said: z.output<typeof fields>): Promise<StoredWeight> {
  const [qweight, qzeros, scales] = (["qweight", "qzeros", "scales"] as const).map((part) => partOf(parts, part, weight)) as [
    Place,
    Place,
    Place,
  ];
  const order = parts.get("g_idx");
  const [words = 0, outputs = 0] = entryOf(qweight).shape;
  const [groups = 0] = entryOf(scales).shape;
  // The bits that were said are those of most modules. How many a module has, its zero points say, or the order of its inputs.
  const ofZeros = ((entryOf(qzeros).shape[1] ?? 0) * 32) / outputs;
  const inputs = order ? (entryOf(order).shape[0] ?? 0) : (words * 32) / ofZeros;
  const bits = order ? (words * 32) / inputs : ofZeros;
  if (![2, 3, 4, 8].includes(bits))
    throw damaged(qweight, `has ${words} words for ${inputs} inputs, which are no codes of 2, 3, 4 or 8 bits`);
  checkPart(qweight, ["I32", "U32"], [words, outputs]);
  checkPart(scales, floatDTypes, [groups, outputs]);
  checkPart(qzeros, ["I32", "U32"], [groups, (outputs * bits) / 32]);
  const groupOf = order ? await groupsOf(order, inputs, groups) : null;
  const groupSize = said.group_size === -1 ? inputs : said.group_size;
  if (!order && !said.dynamic && groups !== Math.ceil(inputs / groupSize))
    throw damaged(scales, `has ${groups} groups, and ${inputs} inputs in groups of ${groupSize} are others`);
  const isInOrder = inputs % groups === 0 && (groupOf?.every((group, input) => group === Math.floor(input / (inputs / groups))) ?? true);
  const version = said.checkpoint_format === "gptq_v2" ? 2 : 1;
  const common = { qweight: plainPart(qweight), qzeros: plainPart(qzeros), scales: plainPart(scales) };
  const place = { place: qweight, shape: [outputs, inputs], type: `gptq ${bits} bits`, options: { bits, version, isInOrder } };
  if (isInOrder) return packedWeight({ ...place, parts: common, values: (held) => gptqValues({ ...held, bits, version }) });
  if (!order)
    throw new CheckpointError(
      `${qweight.file.name}: "${weight}" has ${inputs} inputs in groups of ${shown(said.group_size)}, the last of them shorter, and no "g_idx" that says which. Quantise the model again.`,
      weight,
    );
  return packedWeight({
    ...place,
    parts: { ...common, groupOf: plainPart(order) },
    values: (held) => gptqValues({ ...held, bits, version }),
  });
}

/** The group of each input. Rejects with CheckpointError where one is no group. */
async function groupsOf(place: Place, inputs: number, groups: number): Promise<Float64Array> {
  if (!/^I(32|64)$/.test(entryOf(place).dtype) || entryOf(place).shape.length !== 1) throw damaged(place, "is not a list of whole numbers");
  const values = await place.file.values(place.name);
  const odd = values.findIndex((group) => !(group >= 0 && group < groups));
  if (odd >= 0 && odd < inputs) throw damaged(place, `puts input ${odd} into group ${values[odd]} of ${groups}`);
  return values;
}
