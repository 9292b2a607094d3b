import type { Shape } from "@lowrank/tensor";

/** The kinds of files that are written, by llama.cpp's names for them: its number for each, and the type that most tensors have. */
export const ggufFileTypes = {
  f32: { number: 0, type: "F32" },
  f16: { number: 1, type: "F16" },
  bf16: { number: 32, type: "BF16" },
  q8_0: { number: 7, type: "Q8_0" },
  q4_0: { number: 2, type: "Q4_0" },
  q4_k_m: { number: 15, type: "Q4_K" },
} as const;

export type GgufFileType = keyof typeof ggufFileTypes;

/** A tensor as its file names it. */
export interface NamedShape {
  readonly name: string;
  readonly shape: Shape;
}

/** What of a model the mix looks at. */
export interface MixedModel {
  readonly architecture: string;
  readonly layers: number;
  /** 1 where there are none. */
  readonly experts: number;
}

/** Numbers of a block of a type; others stand alone. */
const blockSizes: Readonly<Record<string, number>> = { Q8_0: 32, Q4_0: 32, Q5_0: 32, Q5_1: 32, Q4_K: 256, Q5_K: 256, Q6_K: 256 };
/** What stands for a type whose blocks do not fill rows: llama-quant.cpp, tensor_type_fallback. */
const otherwise: Readonly<Record<string, string>> = { Q4_K: "Q5_0", Q5_K: "Q5_1", Q6_K: "Q8_0" };

/** Tensors that llama.cpp's converter keeps in f32 whatever the file: conversion/base.py, prepare_tensors. */
const alwaysWide =
  /(^|\.)(ffn_gate_inp|ffn_gate_inp_shexp|position_embd|token_types|ssm_conv1d|shortconv\.conv|altup_correct_coef|altup_predict_coef)\.weight$/;
/** Matrices that are not quantised: llama-quant.cpp, tensor_allows_quantization. */
const neverBlocks =
  /_norm\.weight|ffn_gate_inp\.weight|altup|laurel|per_layer_model_proj|position_embd|token_types|ssm_conv1d|shortconv\.conv\.weight/;

/** Axes as ggml counts them: those of 1 at the outside are none. */
const axesOf = (shape: Shape): number => shape.slice(shape.findIndex((size) => size !== 1)).length;

/**
 * The type of each tensor of a file, by llama.cpp's rules: what stands alone and norms in f32, routers and convolutions too, matrices in the file's
 * type, and in the quantised kinds some with more bits: the output (or the embedding that serves as one), values and the way down of the
 * layers at both ends and of each third between them. Where rows are not whole blocks, the next type of smaller blocks.
 * https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp
 */
export function ggufMix(tensors: readonly NamedShape[], kind: GgufFileType, model: MixedModel): ReadonlyMap<string, string> {
  const { type } = ggufFileTypes[kind];
  const isBlocks = Object.hasOwn(blockSizes, type);
  const isTied = !tensors.some(({ name }) => name === "output.weight");
  const valueCount = tensors.filter(({ name }) => isValues(name)).length;
  const seen = { values: 0, down: 0 };
  const types = new Map<string, string>();
  for (const { name, shape } of tensors) {
    if (axesOf(shape) < 2 || !name.endsWith("weight") || name.endsWith("_norm.weight") || alwaysWide.test(name)) types.set(name, "F32");
    else if (!isBlocks) types.set(name, type);
    else if (neverBlocks.test(name)) types.set(name, "F16");
    else types.set(name, fitting(chosen(name, shape, kind, { ...model, isTied, valueCount, seen }), shape));
  }
  return types;
}

const isValues = (name: string): boolean => /attn_(v|qkv|kv_b)\.weight/.test(name);

interface Counted extends MixedModel {
  readonly isTied: boolean;
  readonly valueCount: number;
  /** Tensors of a kind so far: layers are not all alike. */
  readonly seen: { values: number; down: number };
}

/** llama-quant.cpp, llama_tensor_get_type_impl, for the kinds that are written. */
function chosen(name: string, shape: Shape, kind: GgufFileType, model: Counted): string {
  const { type } = ggufFileTypes[kind];
  const isMixed = kind === "q4_k_m";
  const isOutput = name === "output.weight" || (model.isTied && /^(per_layer_)?token_embd\.weight$/.test(name));
  if (isOutput) return type === "Q8_0" || (shape.at(-1) ?? 1) % (blockSizes[type] ?? 1) !== 0 ? "Q8_0" : "Q6_K";
  if (isValues(name)) {
    const hasMore = isMixed && takesMore(model.seen.values++, model.valueCount);
    if (model.experts === 8) return "Q8_0";
    // Eight heads share a value in models of 70 billion, whose values are few.
    const isLarge = model.layers === 80 && /^(llama|qwen2)$/.test(model.architecture);
    return hasMore ? "Q6_K" : isLarge && type === "Q4_K" ? "Q5_K" : type;
  }
  if (name.includes("attn_k.weight") && model.experts === 8) return "Q8_0";
  if (name.includes("attn_output.weight") && model.experts === 8 && isMixed) return "Q5_K";
  if (name.includes("ffn_down")) {
    const layer = model.experts > 1 ? Number(/^blk\.(\d+)\./.exec(name)?.[1] ?? 0) : model.seen.down++;
    return isMixed && takesMore(layer, model.layers) ? "Q6_K" : type;
  }
  return type;
}

/** Layers at both ends and each third between. */
function takesMore(layer: number, count: number): boolean {
  const eighth = Math.floor(count / 8);
  return layer < eighth || layer >= Math.floor((7 * count) / 8) || (layer - eighth) % 3 === 2;
}

/** A type whose blocks fill the rows; f16 where none does. */
function fitting(type: string, shape: Shape): string {
  const columns = shape.at(-1) ?? 1;
  const fits = (name: string): boolean => columns % (blockSizes[name] ?? 1) === 0;
  if (fits(type)) return type;
  const next = otherwise[type];
  return next !== undefined && fits(next) ? next : "F16";
}
