// A kernel that is equal to a known one but for its slots is not lowered or joined again, however deep the model is.
import { readFileSync } from "node:fs";
import { optim } from "@lowrank/autograd";
import { applyAdapter } from "@lowrank/lora";
import { collate, modelOutline, trainingStep } from "@lowrank/models";
import { device, planningDevice } from "@lowrank/tensor";
import { expect, test } from "vitest";
import { work } from "../packages/tensor/src/schedule/work.js";

type Work = typeof work;

const config = JSON.parse(readFileSync(new URL("../apps/bench/configs/smollm2-135m.json", import.meta.url), "utf8"));
const cpu = await device("cpu");

/** The work of planning LoRA steps of SmolLM2-135M with so many layers, a step for each length, and the kernels of the last. */
async function planned(
  layers: number,
  lengths: readonly number[],
  memory?: number,
): Promise<{ steps: Work[]; kernels: number; arena: number }> {
  const { device: dev, plans } = planningDevice(cpu, memory);
  const model = modelOutline({ ...config, num_hidden_layers: layers }, { device: dev, dtype: "bf16" });
  for (const weight of model.namedParameters().values()) weight.storage?.buffer;
  const adapter = applyAdapter(model, { method: "lora", rank: 8, alpha: 16, targets: "all-linear" });
  const parameters = adapter.namedParameters();
  const optimizer = optim.adamw(parameters, { weightDecay: 0 });
  const step = trainingStep({ model, parameters, rules: adapter.training, optimizer, maxGradNorm: 1 });
  const steps: Work[] = [];
  for (const length of lengths) {
    const ids = new Array<number>(length).fill(0);
    const before = { ...work };
    await step.run([collate([{ line: 0, ids, labels: ids }], { layout: model.batchLayout, lengthLimit: length })], 1e-3);
    const { nodes, lowered, joined, kernels } = work;
    steps.push({
      nodes: nodes - before.nodes,
      lowered: lowered - before.lowered,
      joined: joined - before.joined,
      kernels: kernels - before.kernels,
    });
  }
  const plan = plans.at(-1);
  const kernels = (plan?.kernels ?? []).reduce((sum, kernel) => sum + (kernel.kind === "group" ? kernel.members.length : 1), 0);
  return { steps, kernels, arena: plan?.arenaBytes ?? 0 };
}

test("four times the layers have the same kernels to lower and to join, and four times the work", async () => {
  const [few, many] = [await planned(3, [128]), await planned(12, [128])];
  const [a, b] = [few.steps[0] as Work, many.steps[0] as Work];
  expect(many.kernels).toBeGreaterThan(3 * few.kernels);
  // The sum of all squared gradients is cut into kernels of bounded size.
  expect(b.lowered).toBeLessThanOrEqual(a.lowered + 24);
  expect(b.joined).toBeLessThanOrEqual(a.joined + 12);
  expect(b.nodes).toBeLessThanOrEqual(4 * a.nodes);
  // Searches between kernels grow with the depth up to 128 kernels each.
  expect(b.kernels).toBeLessThanOrEqual(8 * a.kernels);
});

test("what a step without a limit does is not looked for again at another length, and the plan is the same size", async () => {
  const { steps } = await planned(2, [96, 96, 64]);
  expect(steps[1]).toMatchObject({ lowered: 0, joined: 0 });
  expect((steps[2] as Work).nodes).toBeLessThanOrEqual((steps[0] as Work).nodes);
});
