import { type Adapter, applyAdapter } from "@lowrank/lora";
import { type CausalLM, modelOf } from "@lowrank/models";
import { type Device, fromBytes, type Tensor } from "@lowrank/tensor";
import { inputIds } from "./formula.js";
import { gptStart, loraAlpha, loraStart, type StepShape } from "./gpt-start.js";
import { inputTensor } from "./inputs.js";
import type { MatrixMaker } from "./matrix-types.js";

/** A GPT, the batch that it is trained on, and the rank of its LoRA. */
export interface ModelShape extends StepShape {
  readonly name: string;
  readonly rank: number;
}

/** The shapes that the bars are about. */
export const shapes = {
  tiny: { name: "tiny", layers: 4, width: 128, heads: 4, vocab: 512, batch: 8, length: 128, rank: 8 },
  small: { name: "small", layers: 6, width: 384, heads: 6, vocab: 8192, batch: 4, length: 256, rank: 8 },
} as const satisfies Record<string, ModelShape>;

/** A GPT-2 of this shape with start values that every side of a comparison can make; its layers' matrices are what `matrix` makes of them. */
export function buildModel(shape: ModelShape, device: Device, matrix?: MatrixMaker): CausalLM {
  const { layers, width, heads, vocab, length } = shape;
  const config = { model_type: "gpt2", n_embd: width, n_layer: layers, n_head: heads, vocab_size: vocab, n_positions: length };
  const tensors = new Map(
    gptStart(shape).map(({ name, shape: sizes, values }) => {
      const isMatrix = name.startsWith("h.") && sizes.length === 2;
      return [`transformer.${name}`, isMatrix && matrix ? matrix(values, sizes) : stored(device, sizes, values)] as const;
    }),
  );
  return modelOf(config, tensors);
}

/** LoRA on the query and value parts of the fused projection; A by the formula, B zero. Scaling is alpha / rank, with alpha 16. */
export function adapt(model: CausalLM, shape: ModelShape): Adapter {
  const adapter = applyAdapter(model, { method: "lora", rank: shape.rank, alpha: loraAlpha, targets: ["c_attn.q", "c_attn.v"] });
  // In the adapter's order: A and B of queries, A and B of values, layer after layer.
  const starts = loraStart(shape);
  for (const [i, t] of adapter.parameters().entries()) {
    const start = starts[i];
    if (!start || start.values.length !== t.size)
      throw new Error(`bench: the adapter's tensor ${i} is not LoRA's ${start?.name ?? "any more"}.`);
    t.assign(stored(model.device, t.shape, start.values));
  }
  return adapter;
}

/** Token ids of one batch, i32 [batch, length]. */
export function batchIds({ batch, length, vocab }: ModelShape, device: Device): Tensor {
  return inputTensor(device, [batch, length], inputIds(batch * length, vocab), "i32");
}

function stored(device: Device, shape: readonly number[], values: Float32Array): Tensor {
  return fromBytes(new Uint8Array(values.buffer), "f32", shape, device);
}

/**
 * FLOP of one step, two for each multiply-add: forward and the gradient of activations for every matrix, the gradient of weights where they
 * are trained, attention's two products three times (forward, and two each for the gradients of both factors make it 1 + 2), and LoRA's pairs.
 */
export function stepFlops(shape: ModelShape, kind: "lora" | "full"): number {
  const { layers, width, vocab, batch, length, rank } = shape;
  const tokens = batch * length;
  const matrices = layers * 12 * width * width + vocab * width;
  const attention = layers * 2 * batch * length * length * width;
  const pairs = kind === "lora" ? layers * 4 * width * rank : 0;
  const passes = kind === "full" ? 3 : 2;
  return 2 * (tokens * (passes * matrices + 3 * pairs) + 3 * attention);
}
