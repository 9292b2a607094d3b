import type { StoredPiece } from "../../parameters.js";
import type { GgufField, GgufKey, GgufTarget, GgufTargets } from "./description.js";
import { squeezed } from "./targets.js";

const u32 = (value: number): GgufField => ({ type: "u32", value });

/** Sizes of Mamba-2 mixers, whatever a family calls them. */
export interface SsmSizes {
  readonly heads: number;
  readonly headDim: number;
  readonly groups: number;
  readonly stateDim: number;
  readonly convSize: number;
}

/** The mixers' sizes, both ways through a family's own fields. */
export function ssmKeys<Config>(
  sizesOf: (config: Config) => SsmSizes,
  fields: (sizes: SsmSizes, width: number) => Readonly<Record<string, unknown>>,
): GgufKey<Config> {
  return {
    read: (file) => {
      const [heads, inner] = [file.count("ssm.time_step_rank"), file.count("ssm.inner_size")];
      if (heads === 0 || inner % heads !== 0) throw file.wrong("ssm.inner_size", inner, `a multiple of the ${heads} heads`);
      const sizes = {
        heads,
        headDim: inner / heads,
        groups: file.count("ssm.group_count"),
        stateDim: file.count("ssm.state_size"),
        convSize: file.count("ssm.conv_kernel"),
      };
      return fields(sizes, file.count("embedding_length"));
    },
    write: (config) => {
      const { heads, headDim, groups, stateDim, convSize } = sizesOf(config);
      return {
        "ssm.conv_kernel": u32(convSize),
        "ssm.state_size": u32(stateDim),
        "ssm.group_count": u32(groups),
        "ssm.inner_size": u32(heads * headDim),
        "ssm.time_step_rank": u32(heads),
      };
    },
  };
}

/** The parts of a Mamba-2 mixer, below its name. A is −exp(A_log) in a file, A and D are columns, and the norm has a row a group. */
export function mambaNames(name: string, groups: number): GgufTargets {
  return {
    [`${name}.in_proj`]: "ssm_in",
    [`${name}.conv1d`]: squeezed("ssm_conv1d"),
    [`${name}.dt_bias`]: "ssm_dt.bias",
    [`${name}.A_log`]: ({ shape }) => ({ tensors: [{ name: "ssm_a", shape: [...shape, 1] }], changes: [{ kind: "logOfNegative" }] }),
    [`${name}.D`]: ({ shape }) => ({ tensors: [{ name: "ssm_d", shape: [...shape, 1] }] }),
    [`${name}.norm`]: normPerGroup(groups),
    [`${name}.out_proj`]: "ssm_out",
  };
}

/** Biases of zeros for convolutions that have none: without them llama.cpp ends its process over the file. */
export function convZeros(
  layers: readonly number[],
  { heads, headDim, groups, stateDim }: Omit<SsmSizes, "convSize">,
): readonly StoredPiece[] {
  const channels = heads * headDim + 2 * groups * stateDim;
  return layers.map((layer) => ({ name: `blk.${layer}.ssm_conv1d.bias`, shape: [channels] }));
}

function normPerGroup(groups: number): GgufTarget {
  return ({ shape }) => ({ tensors: [{ name: "ssm_norm.weight", shape: [groups, (shape[0] ?? 0) / groups] }] });
}

/** llama.cpp does not limit time steps: a sentence's end where a config does, else null. */
export function limitsTimeSteps([least, most]: readonly [number, number]): string | null {
  return least === 0 && most === Number.POSITIVE_INFINITY ? null : '"time_step_limit" is not from 0 to infinity';
}

/** The keys of a mixer's sizes. */
export const ssmNames: readonly string[] = ["conv_kernel", "state_size", "group_count", "inner_size", "time_step_rank"].map(
  (name) => `ssm.${name}`,
);
