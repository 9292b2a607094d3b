import { applyAdapter, borrowedTargets, targetsFor } from "@lowrank/lora";
import { initModel } from "@lowrank/models";
import { type Device, device } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

const sizes = {
  vocab_size: 11,
  hidden_size: 16,
  intermediate_size: 8,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  max_position_embeddings: 32,
};

describe("the layers that adapters go on where nobody says which", () => {
  const cases: readonly (readonly [type: string, targets: readonly string[], isPefts: boolean])[] = [
    ["qwen3", ["q_proj", "v_proj"], true],
    ["gemma3_text", ["q_proj", "v_proj"], true],
    ["stablelm", ["q_proj", "v_proj"], true],
    ["gpt_neox", ["query_key_value"], true],
    ["granite", ["q_proj", "v_proj"], false],
    ["olmo2", ["q_proj", "v_proj"], false],
    ["phi3", ["qkv_proj"], false],
  ];
  test.each(cases)("of %s are %j", async (type, targets, isPefts) => {
    const model = await initModel({ ...sizes, model_type: type }, { device: dev });
    expect(targetsFor(model)).toEqual(targets);
    const adapter = applyAdapter(model, { method: "lora" });
    expect([...adapter.places.keys()].length).toBe(2 * targets.length);
    expect(borrowedTargets(model, adapter)).toEqual(isPefts ? null : targets);
    adapter.dispose?.();
  });
  test("of a fused projection, its parts can be named", async () => {
    const model = await initModel({ ...sizes, model_type: "phi3" }, { device: dev });
    const adapter = applyAdapter(model, { method: "lora", rank: 2, targets: ["qkv_proj.q", "qkv_proj.v", "gate_up_proj.up"] });
    expect([...adapter.namedParameters()].slice(0, 6).map(([name, { shape }]) => `${name.split(".layers.0.")[1]} ${shape}`)).toEqual([
      "self_attn.qkv_proj.q.lora_A.weight 2,16",
      "self_attn.qkv_proj.q.lora_B.weight 16,2",
      "self_attn.qkv_proj.v.lora_A.weight 2,16",
      "self_attn.qkv_proj.v.lora_B.weight 8,2",
      "mlp.gate_up_proj.up.lora_A.weight 2,16",
      "mlp.gate_up_proj.up.lora_B.weight 8,2",
    ]);
  });
});
