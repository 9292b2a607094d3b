// Layers that keep a state of a text: packed rows do not see each other, rows of a batch go on as each does alone, long prompts in chunks.
import { grad } from "@lowrank/autograd";
import { applyAdapter } from "@lowrank/lora";
import { type CausalLM, initModel, modelOutline, TextGenerator } from "@lowrank/models";
import { type Device, planningDevice, planStatistics, realize, type Tensor, tensor } from "@lowrank/tensor";
import { testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";

const sizes = {
  vocab_size: 29,
  hidden_size: 16,
  intermediate_size: 12,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  max_position_embeddings: 256,
  initializer_range: 0.4,
};
const delta = { linear_num_key_heads: 1, linear_num_value_heads: 2, linear_key_head_dim: 4, linear_value_head_dim: 6 };
const state = { mamba_n_heads: 4, mamba_d_head: 8, mamba_d_state: 3, mamba_d_conv: 3, mamba_chunk_size: 16 };
const configs: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  lfm2: { ...sizes, layer_types: ["conv", "full_attention", "conv"] },
  qwen3_5_text: { ...sizes, ...delta, full_attention_interval: 2 },
  granitemoehybrid: {
    ...sizes,
    ...state,
    num_local_experts: 3,
    shared_intermediate_size: 7,
    position_embedding_type: "rope",
    layer_types: ["mamba", "attention", "mamba"],
  },
  falcon_h1: { ...sizes, ...state, mamba_rms_norm: true },
  gemma4_text: {
    ...sizes,
    layer_types: ["sliding_attention", "full_attention", "full_attention"],
    sliding_window: 6,
    num_kv_shared_layers: 1,
    global_head_dim: 8,
    hidden_size_per_layer_input: 4,
    vocab_size_per_layer_input: 29,
  },
  gpt_oss: { ...sizes, num_local_experts: 3, num_experts_per_tok: 2, sliding_window: 6 },
};

/** A software adapter compiles the shaders of one model for minutes: there one says that the graph is right. */
const isFast = testBackend() === "cpu";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});
const i32 = (rows: readonly (readonly number[])[]): Tensor => tensor(rows as number[][], { dtype: "i32", device: dev });
const text = (length: number, seed: number): number[] => Array.from({ length }, (_, i) => (i * 7 + seed * 5 + ((i * i) % 11)) % 29);

describe.each(Object.entries(configs).slice(0, isFast ? undefined : 1))("%s", (family, config) => {
  let model: CausalLM;
  beforeAll(async () => {
    model = await initModel({ ...config, model_type: family }, { device: dev, seed: 7 });
  });

  test("packed rows have the logits that they have apart", async () => {
    const rows = [text(5, 1), text(1, 2), text(70, 3), text(9, 4)];
    const positions = rows.flatMap((row) => row.map((_, i) => i));
    const packed = await model.forward(i32([rows.flat()]), { packed: { positions: i32([positions]), rowLimit: 70 } }).data();
    let from = 0;
    for (const row of rows) {
      const alone = await model.forward(i32([row])).data();
      const own = packed.slice(from * 29, (from + row.length) * 29);
      expect(Math.max(...Array.from(alone, (x, i) => Math.abs(x - (own[i] ?? Number.NaN))))).toBeLessThan(2e-4);
      from += row.length;
    }
  });

  test("rows of different lengths in one batch go on as the whole text says", async () => {
    const prompts = [text(3, 1), text(75, 2), text(1, 3)];
    const generator = new TextGenerator(model, {});
    const continued = await generator.generate(prompts, { maxNewTokens: 6, stopTokens: [] });
    generator.dispose();
    for (const [i, prompt] of prompts.entries()) {
      const all = [...prompt, ...(continued[i] ?? [])];
      const logits = await model.forward(i32([all])).data();
      for (let at = prompt.length - 1; at < all.length - 1; at++) {
        const row = Array.from(logits.slice(at * 29, (at + 1) * 29));
        const chosen = row[all[at + 1] ?? -1] ?? Number.NEGATIVE_INFINITY;
        expect(Math.max(...row) - chosen).toBeLessThan(2e-4);
      }
    }
  });
});

test.runIf(isFast).each([
  ["qwen3_5_text", "in_proj_qkv"],
  ["granitemoehybrid", "in_proj"],
])("%s: a step's memory is linear in its tokens", async (family, target) => {
  const layers = { num_hidden_layers: 2, layer_types: new Array(2).fill("linear_attention"), max_position_embeddings: 4096 };
  const bytesOf = async (tokens: number): Promise<number> => {
    const { device, plans } = planningDevice(dev);
    const model = modelOutline({ ...configs[family], ...layers, model_type: family }, { device });
    const ids = tensor([text(tokens, 1)], { dtype: "i32", device });
    const parameters = applyAdapter(model, { method: "lora", rank: 2, targets: [target] }).parameters();
    const loss = model.loss(ids, ids);
    const { length: before } = plans;
    await realize(loss, ...grad(loss, parameters));
    return Math.max(...plans.slice(before).map((plan) => planStatistics(plan).arenaBytes));
  };
  expect((await bytesOf(2048)) / (await bytesOf(1024))).toBeLessThan(2.1);
});
