import { grad } from "@lowrank/autograd";
import { applyAdapter } from "@lowrank/lora";
import { initModel, modelOutline } from "@lowrank/models";
import { compile, type Device, largest, planningDevice, planStatistics, realize, type Tensor } from "@lowrank/tensor";
import { inputIds } from "../formula.js";
import { inputTensor } from "../inputs.js";
import { alternate, type Side } from "../timing.js";
import type { Bar } from "./bar.js";

/** Layers of Qwen3.5-0.8B, four of them, with a small vocabulary so that its head does not hide them. */
const widths = {
  model_type: "qwen3_5_text",
  vocab_size: 4096,
  hidden_size: 1024,
  intermediate_size: 3584,
  num_hidden_layers: 4,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  head_dim: 256,
  linear_num_key_heads: 16,
  linear_num_value_heads: 16,
  linear_key_head_dim: 128,
  linear_value_head_dim: 128,
  linear_conv_kernel_dim: 4,
  max_position_embeddings: 32768,
  tie_word_embeddings: true,
};
const layers = {
  linear: ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
  full: ["full_attention", "full_attention", "full_attention", "full_attention"],
} as const;
const lora = { method: "lora", rank: 8, alpha: 16, targets: "all-linear" } as const;

const idsOf = (dev: Device, tokens: number): Tensor => inputTensor(dev, [1, tokens], inputIds(tokens, widths.vocab_size), "i32");

async function step(dev: Device, kind: keyof typeof layers, tokens: number): Promise<Side> {
  const model = await initModel({ ...widths, layer_types: layers[kind] }, { device: dev, seed: 1 });
  const parameters = applyAdapter(model, lora).parameters();
  const ids = idsOf(dev, tokens);
  const run = compile((given: Tensor) => {
    const loss = model.loss(given, given);
    return [loss, ...grad(loss, parameters)];
  });
  return {
    name: kind,
    run: async (count) => {
      const start = performance.now();
      for (let i = 0; i < count; i++) for (const result of run(ids)) await result.data();
      return (performance.now() - start) / 1000;
    },
  };
}

/** Bytes that a step's plan reserves for intermediates. */
async function arenaBytes(dev: Device, kind: keyof typeof layers, tokens: number): Promise<number> {
  const { device, plans } = planningDevice(dev);
  const model = modelOutline({ ...widths, layer_types: layers[kind] }, { device });
  const parameters = applyAdapter(model, lora).parameters();
  const loss = model.loss(idsOf(device, tokens), idsOf(device, tokens));
  const { length: before } = plans;
  await realize(loss, ...grad(loss, parameters));
  return largest(plans.slice(before).map((plan) => planStatistics(plan).arenaBytes));
}

export const mixerBars: readonly Bar[] = [
  {
    name: "LoRA step of 2048 tokens, 4 layers as wide as Qwen3.5-0.8B's, against all of them full_attention / memory of 4096 tokens against 2048",
    brief: "gated delta / full, memory at 2x",
    limits: [
      { atMost: 1.5, unit: "x" },
      { atMost: 2.1, unit: "x" },
    ],
    isTimed: true,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const tokens = context.isQuick ? 1024 : 2048;
        const sides = [await step(dev, "linear", tokens), await step(dev, "full", tokens)];
        const [linear, full] = await alternate(sides, { rounds: context.isQuick ? 1 : 3, maxCount: 1 });
        const [once, twice] = [await arenaBytes(dev, "linear", 2048), await arenaBytes(dev, "linear", 4096)];
        const [time = Number.NaN, other = Number.NaN] = [linear?.median, full?.median];
        return {
          values: [time / other, twice / once],
          detail: `${time.toFixed(1)} s against ${other.toFixed(1)} s with ${tokens} tokens, ${(once / 2 ** 20).toFixed(0)} MiB of intermediates`,
        };
      }),
  },
];
