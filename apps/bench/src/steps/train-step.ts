import { grad, optim } from "@lowrank/autograd";
import { compile, type Device, type Plan, type PlanStatistics, planStatistics, type Tensor } from "@lowrank/tensor";
import { adapt, batchIds, buildModel, type ModelShape } from "../shapes.js";
import type { Side } from "../timing.js";
import { observe, type Targets } from "./observe.js";

/** What is trained. */
export type Training = "lora" | "full";

/** A compiled training step of a GPT with AdamW (learning rate 1e-3, no decay). */
export interface TrainStep {
  /** Enqueues one step and returns its loss. */
  call(): Tensor;
  /** One step, its loss read. */
  loss(): Promise<number>;
  readonly side: Side;
  readonly device: Device;
  readonly optimizerBytes: number;
  readonly parameterCount: number;
  dispose(): void;
}

/** Makes a step; with `part: "gradients"` it ends before the optimizer and returns the gradients' values unused by anyone. */
export function trainStep(
  device: Device,
  shape: ModelShape,
  training: Training,
  part: "update" | "gradients" = "update",
  name = "lowrank",
  model = buildModel(shape, device),
): TrainStep {
  const parameters = training === "lora" ? adapt(model, shape).parameters() : [...new Set(model.namedParameters().values())];
  const optimizer = optim.adamw(parameters, { learningRate: 1e-3, weightDecay: 0 });
  const ids = batchIds(shape, device);
  const step = compile((batch: Tensor) => {
    const loss = model.loss(batch, batch);
    const gradients = grad(loss, parameters);
    if (part === "gradients") return { loss, gradients };
    optimizer.update(gradients);
    return { loss, gradients: [] };
  });
  const call = (): Tensor => {
    const { loss, gradients } = step(ids);
    for (const gradient of gradients) gradient.dispose();
    return loss;
  };
  const loss = async (): Promise<number> => {
    const result = call();
    const value = await result.item();
    result.dispose();
    return value;
  };
  return {
    call,
    loss,
    device,
    side: {
      name,
      async run(count) {
        const start = performance.now();
        for (let i = 1; i < count; i++) call().dispose();
        await loss();
        return (performance.now() - start) / 1000;
      },
    },
    optimizerBytes: optimizer.stateBytes,
    parameterCount: parameters.reduce((sum, { size }) => sum + size, 0),
    dispose: () => step.dispose(),
  };
}

/** The plan of a training step and the graph that it came from. */
export interface StepPlan {
  readonly plan: Plan;
  readonly statistics: PlanStatistics;
  readonly targets: Targets;
}

/** Records a step and runs it once. */
export async function stepPlan(
  device: Device,
  shape: ModelShape,
  training: Training,
  part: "update" | "gradients" = "update",
): Promise<StepPlan> {
  const seen = observe(device);
  const step = trainStep(device, shape, training, part);
  // Parameters were made and assigned before; what comes now is the step.
  await device.finish();
  seen.runs.length = 0;
  seen.graphs.length = 0;
  await step.loss();
  seen.end();
  step.dispose();
  const plan = [...seen.runs].sort((a, b) => b.kernels.length - a.kernels.length)[0];
  const targets = [...seen.graphs].sort((a, b) => b.length - a.length)[0];
  if (!plan || !targets) throw new Error("The step ran no plan.");
  return { plan, statistics: planStatistics(plan), targets };
}

/** Peak bytes of the device during one more step, everything that it holds included. */
export async function peakOfStep(step: TrainStep): Promise<number> {
  const { counters } = step.device.backend;
  counters.peakBytes = counters.bytesInUse;
  await step.loss();
  return counters.peakBytes;
}
