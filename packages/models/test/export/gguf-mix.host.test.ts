import { describe, expect, test } from "vitest";
import { type GgufFileType, ggufMix, type MixedModel, type NamedShape } from "../../src/export/gguf-mix.js";

interface Sizes {
  readonly layers: number;
  readonly width: number;
  readonly inner: number;
  readonly keys: number;
  readonly vocabulary: number;
  readonly isTied?: boolean;
  readonly hasBias?: boolean;
  readonly experts?: number;
}

/** The tensors of a llama-like model. */
function tensorsOf({ layers, width, inner, keys, vocabulary, isTied = false, hasBias = false, experts = 1 }: Sizes): NamedShape[] {
  const block = (layer: number): NamedShape[] => {
    const at = (name: string, ...shape: number[]): NamedShape => ({ name: `blk.${layer}.${name}`, shape });
    const stacked = (name: string, rows: number, columns: number): NamedShape =>
      experts > 1 ? at(`${name}_exps.weight`, experts, rows, columns) : at(`${name}.weight`, rows, columns);
    return [
      at("attn_norm.weight", width),
      at("attn_q.weight", width, width),
      at("attn_k.weight", keys, width),
      at("attn_v.weight", keys, width),
      at("attn_output.weight", width, width),
      ...(hasBias ? [at("attn_q.bias", width), at("attn_k.bias", keys), at("attn_v.bias", keys)] : []),
      at("ffn_norm.weight", width),
      ...(experts > 1 ? [at("ffn_gate_inp.weight", experts, width)] : []),
      stacked("ffn_gate", inner, width),
      stacked("ffn_up", inner, width),
      stacked("ffn_down", width, inner),
    ];
  };
  return [
    { name: "token_embd.weight", shape: [vocabulary, width] },
    ...Array.from({ length: layers }, (_, layer) => block(layer)).flat(),
    { name: "output_norm.weight", shape: [width] },
    ...(isTied ? [] : [{ name: "output.weight", shape: [vocabulary, width] }]),
  ];
}

const llama7b: Sizes = { layers: 32, width: 4096, inner: 11008, keys: 4096, vocabulary: 32000 };
const llama1b: Sizes = { layers: 16, width: 2048, inner: 8192, keys: 512, vocabulary: 128256, isTied: true };
const qwen05b: Sizes = { layers: 24, width: 896, inner: 4864, keys: 128, vocabulary: 151936, isTied: true, hasBias: true };
const smol135m: Sizes = { layers: 30, width: 576, inner: 1536, keys: 192, vocabulary: 49152, isTied: true };
const mixtral: Sizes = { layers: 32, width: 4096, inner: 14336, keys: 1024, vocabulary: 32000, experts: 8 };

function mixOf(sizes: Sizes, kind: GgufFileType, architecture = "llama"): ReadonlyMap<string, string> {
  const model: MixedModel = { architecture, layers: sizes.layers, experts: sizes.experts ?? 1 };
  return ggufMix(tensorsOf(sizes), kind, model);
}

function counted(types: ReadonlyMap<string, string>): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const type of types.values()) counts[type] = (counts[type] ?? 0) + 1;
  return counts;
}

describe("the mix of types is llama.cpp's", () => {
  // What llama.cpp's loader prints of the files that its own llama-quantize made of these models.
  test.each<readonly [string, Sizes, GgufFileType, Record<string, number>]>([
    ["Llama 2 7B, Q4_K_M", llama7b, "q4_k_m", { F32: 65, Q4_K: 193, Q6_K: 33 }],
    ["Llama 3.2 1B, Q4_K_M, tied", llama1b, "q4_k_m", { F32: 33, Q4_K: 96, Q6_K: 17 }],
    ["Qwen 2.5 0.5B, Q4_K_M, whose rows are no multiple of 256", qwen05b, "q4_k_m", { F32: 121, Q5_0: 132, Q8_0: 13, Q4_K: 12, Q6_K: 12 }],
    ["Llama 2 7B, Q4_0", llama7b, "q4_0", { F32: 65, Q4_0: 225, Q6_K: 1 }],
    ["Llama 2 7B, Q8_0", llama7b, "q8_0", { F32: 65, Q8_0: 226 }],
    ["SmolLM2 135M, Q4_0: the embedding's rows are no multiple of 256", smol135m, "q4_0", { F32: 61, Q4_0: 210, Q8_0: 1 }],
    ["F16", llama7b, "f16", { F32: 65, F16: 226 }],
    ["BF16", llama7b, "bf16", { F32: 65, BF16: 226 }],
    ["F32", llama7b, "f32", { F32: 291 }],
  ])("%s", (_, sizes, kind, expected) => {
    expect(counted(mixOf(sizes, kind))).toEqual(expected);
  });

  test("eight experts: keys and values in Q8_0, outputs in Q5_K, routers in f32", () => {
    const types = mixOf(mixtral, "q4_k_m");
    const of = (name: string): string | undefined => types.get(`blk.5.${name}`);
    expect(
      ["attn_k.weight", "attn_v.weight", "attn_output.weight", "attn_q.weight", "ffn_gate_inp.weight", "ffn_up_exps.weight"].map(of),
    ).toEqual(["Q8_0", "Q8_0", "Q5_K", "Q4_K", "F32", "Q4_K"]);
    expect([0, 3, 4, 6, 7, 27, 28].map((layer) => types.get(`blk.${layer}.ffn_down_exps.weight`))).toEqual([
      "Q6_K",
      "Q6_K",
      "Q4_K",
      "Q6_K",
      "Q4_K",
      "Q6_K",
      "Q6_K",
    ]);
  });

  test.each<readonly [string, NamedShape, GgufFileType, string]>([
    ["a convolution", { name: "blk.0.shortconv.conv.weight", shape: [64, 3] }, "f16", "F32"],
    ["a router", { name: "blk.0.ffn_gate_inp.weight", shape: [8, 256] }, "bf16", "F32"],
    ["a norm of matrices", { name: "blk.0.attn_q_norm.weight", shape: [4, 256] }, "q8_0", "F32"],
    ["what is no weight", { name: "blk.0.ssm_a", shape: [4, 256] }, "f16", "F32"],
    ["a single row", { name: "blk.0.ffn_up.weight", shape: [1, 256] }, "q8_0", "F32"],
    ["positions", { name: "position_embd.weight", shape: [64, 256] }, "q4_k_m", "F32"],
    ["Gemma 3n's small matrices", { name: "blk.0.laurel_l.weight", shape: [64, 256] }, "q4_k_m", "F16"],
    ["rows of half blocks", { name: "blk.0.ffn_up.weight", shape: [64, 48] }, "q8_0", "F16"],
    ["rows of half blocks of every type", { name: "blk.0.ffn_up.weight", shape: [64, 48] }, "q4_k_m", "F16"],
    ["rows of blocks of 32", { name: "blk.0.ffn_up.weight", shape: [64, 96] }, "q4_k_m", "Q5_0"],
  ])("%s", (_, tensor, kind, type) => {
    const model: MixedModel = { architecture: "llama", layers: 24, experts: 1 };
    expect(ggufMix([tensor, { name: "output.weight", shape: [64, 256] }], kind, model).get(tensor.name)).toBe(type);
  });
});
