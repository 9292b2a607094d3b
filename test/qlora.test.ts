import { grad, optim } from "@lowrank/autograd";
import { applyAdapter } from "@lowrank/lora";
import { loadModel, modelOutline } from "@lowrank/models";
import {
  compile,
  type Device,
  memoryFiles,
  planningDevice,
  type QuantizedType,
  realizeNow,
  type Tensor,
  tensor,
  writeSafetensors,
} from "@lowrank/tensor";
import { testBackend, testDevice } from "test-support";
import { beforeAll, expect, test } from "vitest";
import golden from "./qlora.json" with { type: "json" };

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

const config = {
  model_type: "llama",
  ...golden.sizes,
  tie_word_embeddings: false,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
};

/** Numbers within ±1 that qlora.py makes too. */
function formula(count: number, seed: number): Float64Array {
  let state = seed;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) / 2 ** 23 - 1;
  });
}

/** A checkpoint of these numbers, in f32. */
async function checkpoint(): Promise<ReturnType<typeof memoryFiles>> {
  const files = memoryFiles();
  const { device: outline } = planningDevice(dev);
  const shapes = [...modelOutline(config, { device: outline }).namedParameters()].map(([name, { shape }]) => [name, shape] as const);
  const tensors = shapes
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, shape], number): [string, Tensor] => {
      const count = shape.reduce((product, size) => product * size, 1);
      const values = name.includes("norm")
        ? new Float32Array(count).fill(1)
        : Float32Array.from(formula(count, number + 1), (x) => x * 0.25);
      return [name, tensor(values, { shape, device: dev })];
    });
  await files.write("model/model.safetensors", writeSafetensors(new Map(tensors)));
  await files.write("model/config.json", new TextEncoder().encode(JSON.stringify(config)));
  return files;
}

/** Types of four bits that a software adapter is held to; the others are products of the same kinds. */
const types = Object.keys(golden.losses).filter((type) => testBackend() === "cpu" || ["nf4", "q4_0"].includes(type));

test.each(types)("ten steps of LoRA beside a base in %s have PyTorch's losses on the dequantized weights", async (type) => {
  const files = await checkpoint();
  const quantize = type === "none" ? null : (type as QuantizedType);
  const { model } = await loadModel("model", { device: dev, files, quantize });
  const adapter = applyAdapter(model, { method: "lora", rank: 4, alpha: 8, targets: "all-linear" });
  const named = [...adapter.namedParameters()].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [number, [name, parameter]] of named.entries())
    if (name.includes("lora_A")) {
      const values = Float32Array.from(formula(parameter.size, 100 + number), (x) => x / 8);
      parameter.assign(tensor(values, { shape: parameter.shape, device: dev }));
    }
  realizeNow(named.map(([, parameter]) => parameter));
  const parameters = named.map(([, parameter]) => parameter);
  const optimizer = optim.adamw(parameters, { learningRate: 0.02, weightDecay: 0 });
  const tokens = Int32Array.from(formula(2 * 16, 99), (x) => Math.floor(((x + 1) / 2) * 48));
  const ids = tensor(tokens, { dtype: "i32", shape: [2, 16], device: dev });
  const step = compile((batch: Tensor) => {
    const loss = model.loss(batch, batch);
    optimizer.update(grad(loss, parameters));
    return loss;
  });
  for (const [at, wanted] of golden.losses[type as keyof typeof golden.losses].entries()) {
    const loss = await step(ids).item();
    // Both sum in f32 and in other orders.
    expect(Math.abs(loss - wanted), `step ${at + 1}: ${loss} instead of ${wanted}`).toBeLessThan(1e-3);
  }
  adapter.dispose();
});
