import { type Adapter, applyAdapter } from "@lowrank/lora";
import { Gpt2, gpt2Config } from "@lowrank/models";
import { type Device, fromBytes, sizeOf, type Tensor } from "@lowrank/tensor";
import { inputIds, inputTensor, inputValues } from "./inputs.js";

/** A GPT and the batch that it is trained on. */
export interface ModelShape {
  readonly name: string;
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly vocab: number;
  readonly batch: number;
  readonly length: number;
  readonly rank: number;
}

/** The shapes that the bars are about. */
export const shapes = {
  tiny: { name: "tiny", layers: 4, width: 128, heads: 4, vocab: 512, batch: 8, length: 128, rank: 8 },
  small: { name: "small", layers: 6, width: 384, heads: 6, vocab: 8192, batch: 4, length: 256, rank: 8 },
} as const satisfies Record<string, ModelShape>;

const loraAlpha = 16;

/** Names and shapes of a GPT-2's tensors, in the checkpoint's order. */
function parameterShapes({ layers, width, vocab, length }: ModelShape): [name: string, shape: readonly number[]][] {
  const blocks = Array.from({ length: layers }, (_, layer): [string, readonly number[]][] =>
    (
      [
        ["ln_1.weight", [width]],
        ["ln_1.bias", [width]],
        ["attn.c_attn.weight", [width, 3 * width]],
        ["attn.c_attn.bias", [3 * width]],
        ["attn.c_proj.weight", [width, width]],
        ["attn.c_proj.bias", [width]],
        ["ln_2.weight", [width]],
        ["ln_2.bias", [width]],
        ["mlp.c_fc.weight", [width, 4 * width]],
        ["mlp.c_fc.bias", [4 * width]],
        ["mlp.c_proj.weight", [4 * width, width]],
        ["mlp.c_proj.bias", [width]],
      ] as const
    ).map(([name, shape]) => [`transformer.h.${layer}.${name}`, shape]),
  );
  return [
    ["transformer.wte.weight", [vocab, width]],
    ["transformer.wpe.weight", [length, width]],
    ...blocks.flat(),
    ["transformer.ln_f.weight", [width]],
    ["transformer.ln_f.bias", [width]],
  ];
}

/** Start values: norms 1, biases 0, matrices by the formula of inputs.ts times 0.04. */
function startValues(name: string, shape: readonly number[], number: number): Float32Array {
  const count = sizeOf(shape);
  if (/ln_\w+\.weight$/.test(name)) return new Float32Array(count).fill(1);
  if (name.endsWith(".bias")) return new Float32Array(count);
  return inputValues(count, number, 0, 0.04);
}

/** A GPT-2 of this shape with start values that every side of a comparison can make. */
export function buildModel(shape: ModelShape, device: Device): Gpt2 {
  const config = gpt2Config(
    { n_embd: shape.width, n_layer: shape.layers, n_head: shape.heads, vocab_size: shape.vocab, n_positions: shape.length },
    shape.name,
  );
  const tensors = new Map(
    parameterShapes(shape).map(([name, sizes], number) => [name, stored(device, sizes, startValues(name, sizes, number))] as const),
  );
  return new Gpt2(config, tensors);
}

/** LoRA on the query and value parts of the fused projection; A by the formula, B zero. Scaling is alpha / rank, with alpha 16. */
export function adapt(model: Gpt2, shape: ModelShape): Adapter {
  const adapter = applyAdapter(model, { method: "lora", rank: shape.rank, alpha: loraAlpha, targets: ["c_attn.q", "c_attn.v"] });
  const first = parameterShapes(shape).length;
  for (const [i, [name, t]] of [...adapter.namedParameters()].entries()) {
    if (name.includes("lora_A")) t.assign(stored(model.device, t.shape, inputValues(t.size, first + i, 0, 0.04)));
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
