import * as z from "zod/mini";
import type { MambaOptions } from "../decoder/mamba.js";
import { asFloat, count, field, flag, isCount } from "../schema.js";
import type { FieldsOf, Sizes } from "./fields.js";
import type { SsmSizes } from "./gguf/mamba.js";

/** Sizes of Mamba-2 mixers, as Granite's and Falcon's files name them. */
export interface MambaSizes {
  readonly mamba_n_heads: number;
  /** The width times `mamba_expand` over the heads where it is "auto". */
  readonly mamba_d_head: number | "auto";
  readonly mamba_n_groups: number;
  readonly mamba_d_state: number;
  readonly mamba_d_conv: number;
  readonly mamba_expand: number;
  readonly mamba_chunk_size: number;
  readonly mamba_conv_bias: boolean;
  readonly mamba_proj_bias: boolean;
  readonly time_step_limit: readonly [least: number, most: number];
}

export const mambaFields: FieldsOf<MambaSizes> = {
  mamba_n_heads: count(128),
  mamba_d_head: field<number | "auto">('a positive integer or "auto"', (value) => value === "auto" || isCount(value), "auto"),
  mamba_n_groups: count(1),
  mamba_d_state: count(256),
  mamba_d_conv: count(4),
  mamba_expand: count(2),
  mamba_chunk_size: count(256),
  mamba_conv_bias: flag(true),
  mamba_proj_bias: flag(false),
  time_step_limit: asFloat(timeStepLimit()),
};

/** The width of all heads together, as Falcon's files say it beside the rest; null for `mamba_expand` times the model's. */
interface InnerWidth {
  readonly mamba_d_ssm?: number | null;
}

/** A mixer of these sizes, but for its norm. */
export function mambaSizes(config: MambaSizes & InnerWidth & Pick<Sizes, "hidden_size" | "hidden_act">): Omit<MambaOptions, "norm"> {
  const { mamba_n_heads: heads, mamba_d_head: given, mamba_proj_bias: bias } = config;
  return {
    heads,
    headDim: given === "auto" ? innerWidth(config) / heads : given,
    stateDim: config.mamba_d_state,
    groups: config.mamba_n_groups,
    convSize: config.mamba_d_conv,
    bias: { conv: config.mamba_conv_bias, in: bias, out: bias },
    activation: config.hidden_act,
    chunk: config.mamba_chunk_size,
    timeStepLimit: config.time_step_limit,
  };
}

/** Fields for sizes that a GGUF file has. `width`: the model's. */
export function mambaFieldsOf({ heads, headDim, groups, stateDim, convSize }: SsmSizes, width: number): Readonly<Record<string, number>> {
  return {
    mamba_n_heads: heads,
    mamba_d_head: headDim,
    mamba_n_groups: groups,
    mamba_d_state: stateDim,
    mamba_d_conv: convSize,
    mamba_expand: Math.max(1, Math.round((heads * headDim) / width)),
  };
}

function innerWidth(config: MambaSizes & InnerWidth & Pick<Sizes, "hidden_size">): number {
  return config.mamba_d_ssm ?? config.mamba_expand * config.hidden_size;
}

/** Heads in groups of equal size, and of equal size where that is not said. */
export function mambaGroupsFit(config: MambaSizes & InnerWidth & Pick<Sizes, "hidden_size">): string | null {
  const { mamba_n_heads: heads, mamba_n_groups: groups, mamba_d_head: given } = config;
  if (heads % groups !== 0) return `"mamba_n_heads" ${heads} is not a multiple of "mamba_n_groups" ${groups}`;
  const inner = innerWidth(config);
  return given === "auto" && inner % heads !== 0 ? `"mamba_n_heads" ${heads} does not divide a Mamba's width of ${inner}` : null;
}

/** [least, most] of a Mamba's time steps, where infinity is what transformers 5 writes for it. */
function timeStepLimit(): z.ZodMiniType<readonly [number, number], unknown> {
  return z.pipe(
    z.transform((value: unknown): unknown => (Array.isArray(value) ? value.map(numberOf) : (value ?? [0, Number.POSITIVE_INFINITY]))),
    field<readonly [number, number]>(
      "two numbers, the least and the largest",
      (value) => Array.isArray(value) && value.length === 2 && value.every((item) => typeof item === "number" && !Number.isNaN(item)),
    ),
  );
}

function numberOf(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  return Number((value as { readonly __float__?: unknown }).__float__);
}
