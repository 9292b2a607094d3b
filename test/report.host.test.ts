// What is printed before training is what is then allocated: the adapter's weights, and the optimizer's state.
import { optim } from "@lowrank/autograd";
import { type AdapterOptions, applyAdapter, parameterReport } from "@lowrank/lora";
import { initModel } from "@lowrank/models";
import { device, type Tensor } from "@lowrank/tensor";
import { expect, test } from "vitest";

const config = {
  model_type: "gpt2",
  vocab_size: 300,
  n_embd: 96,
  n_layer: 3,
  n_head: 4,
  n_positions: 64,
};

const choices: readonly AdapterOptions[] = [
  { method: "lora", rank: 8, targets: "all-linear" },
  { method: "lora", rank: 4, targets: ["c_attn", "wte"], bias: "all", modulesToSave: ["ln_f"] },
  { method: "dora", rank: 8, targets: "all-linear" },
  { method: "adalora", totalSteps: 100, targets: "all-linear" },
  { method: "loha", rank: 8, targets: "all-linear" },
  { method: "lokr", rank: 4, targets: "all-linear" },
  { method: "oft", blockSize: 32, targets: "all-linear" },
  { method: "ia3" },
  { method: "norms" },
  { method: "bitfit" },
  { method: "prefix", virtualTokens: 10 },
  { method: "prompt", virtualTokens: 10 },
  { method: "ptuning", virtualTokens: 10 },
  { method: "ptuning-v2", virtualTokens: 10 },
  { method: "houlsby" },
  { method: "pfeiffer" },
  { method: "parallel" },
];

test.each(choices)("$method: counts and bytes are those that are allocated, to 1 %", async (options) => {
  const dev = await device("cpu", { threads: 1 });
  const model = await initModel(config, { device: dev, seed: 1 });
  const adapter = applyAdapter(model, { onWarning: () => {}, ...options });
  const report = parameterReport(model, adapter);
  const parameters = adapter.parameters();
  expect(report.trainable).toBe(parameters.reduce((sum, { size }) => sum + size, 0));
  expect(report.frozen).toBe(model.parameters().reduce((sum, { size }) => sum + size, 0));
  const optimizer = optim.adamw(parameters);
  const allocated = (tensors: Iterable<Tensor>): number =>
    [...tensors].reduce((sum, { home }) => sum + (home?.buffer.bytes ?? Number.NaN), 0);
  const differs = (bytes: number, printed: number): number => Math.abs(bytes - printed) / printed;
  expect(differs(allocated(parameters), report.weightBytes.trainable)).toBeLessThan(0.01);
  expect(differs(allocated(model.parameters()), report.weightBytes.frozen)).toBeLessThan(0.01);
  expect(differs(allocated(optimizer.state().values()), report.optimizerBytes)).toBeLessThan(0.01);
  dev.dispose();
});
