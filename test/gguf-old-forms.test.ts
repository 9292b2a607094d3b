// Files of llama.cpp's converter as it was: the same numbers in other tensors give the same model.
import { initModel, type LoadedModel } from "@lowrank/models";
import { tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { expect, test } from "vitest";
import { contentOf, fileOf, type GgufContent, modelOfGguf } from "./gguf.js";

type Tensors = GgufContent["tensors"];
type Tensor = Tensors extends ReadonlyMap<string, infer T> ? T : never;

/** The tensors of which a name says what becomes of them: others, under their names; the rest as they are. */
function replaced(tensors: Tensors, become: (name: string, found: Tensor) => readonly (readonly [string, Tensor])[] | null): Tensors {
  return new Map([...tensors].flatMap(([name, found]) => become(name, found) ?? [[name, found] as const]));
}

/** A tensor for each expert: before April 2024. */
const eachExpert = (tensors: Tensors): Tensors =>
  replaced(tensors, (name, { shape: [count = 0, ...shape], values }) => {
    const [, layer, part] = /^(blk\.\d+)\.ffn_(gate|up|down)_exps\.weight$/.exec(name) ?? [];
    if (layer === undefined) return null;
    const size = values.length / count;
    return Array.from({ length: count }, (_, expert) => [
      `${layer}.ffn_${part}.${expert}.weight`,
      { shape, values: values.slice(expert * size, (expert + 1) * size) },
    ]);
  });

/** Queries, keys and values in one tensor. */
const fused = (tensors: Tensors): Tensors =>
  replaced(tensors, (name) => {
    const [, layer, part, suffix] = /^(blk\.\d+)\.attn_([qkv])\.(weight|bias)$/.exec(name) ?? [];
    if (layer === undefined) return null;
    if (part !== "q") return [];
    const parts = ["q", "k", "v"].map((each) => tensors.get(`${layer}.attn_${each}.${suffix}`) as Tensor); // a layer has all three
    const rows = parts.reduce((sum, { shape }) => sum + (shape[0] ?? 0), 0);
    const values = Float32Array.from(parts.flatMap((each) => [...each.values]));
    return [[`${layer}.attn_qkv.${suffix}`, { shape: [rows, ...(parts[0]?.shape.slice(1) ?? [])], values }]];
  });

const sizes = {
  vocab_size: 20,
  hidden_size: 24,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  max_position_embeddings: 32,
};

test.each<readonly [string, Record<string, unknown>, (tensors: Tensors) => Tensors, string]>([
  ["Mixtral's experts", { model_type: "mixtral", num_local_experts: 3, ...sizes }, eachExpert, "blk.1.ffn_gate.2.weight"],
  ["Phi-2's queries, keys and values", { model_type: "phi", ...sizes, num_key_value_heads: 3 }, fused, "blk.1.attn_qkv.bias"],
])("%s, each in tensors of its own or all in one", async (_, config, older, sign) => {
  const device = await testDevice();
  const { model }: Pick<LoadedModel, "model"> = { model: await initModel(config, { device, seed: 5 }) };
  const content = await contentOf(model);
  const logitsOf = async (tensors: Tensors): Promise<readonly number[]> => {
    const filed = await modelOfGguf(await fileOf({ ...content, tensors }), device);
    expect({ unread: filed.unread, unused: filed.unused }).toEqual({ unread: [], unused: [] });
    const logits = await filed.model.forward(tensor([[1, 5, 9, 4]], { dtype: "i32", device })).data();
    filed.model.dispose();
    return [...logits];
  };
  const others = older(content.tensors);
  expect(others.has(sign)).toBe(true);
  expect(await logitsOf(others)).toEqual(await logitsOf(content.tensors));
  model.dispose();
});
