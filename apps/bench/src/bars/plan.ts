import type { Device } from "@lowrank/tensor";
import { type ModelShape, shapes } from "../shapes.js";
import { withoutKernels } from "../steps/observe.js";
import { minimumBytes } from "../steps/traffic.js";
import { peakOfStep, type StepPlan, stepPlan, trainStep } from "../steps/train-step.js";
import { quantile } from "../timing.js";
import type { Bar } from "./bar.js";

/** What a training loop makes anew after its second step. */
export async function growthAfterStepTwo(
  dev: Device,
  shape: ModelShape,
  steps = 20,
): Promise<{ buffers: number; pipelines: number; plans: number }> {
  const step = trainStep(dev, shape, "lora");
  await step.loss();
  await step.loss();
  const { buffersCreated, pipelinesCreated, plansPrepared } = dev.counters;
  for (let i = 0; i < steps; i++) await step.loss();
  step.dispose();
  const { counters } = dev;
  return {
    buffers: counters.buffersCreated - buffersCreated,
    pipelines: counters.pipelinesCreated - pipelinesCreated,
    plans: counters.plansPrepared - plansPrepared,
  };
}

/** Kernels of one more layer, and of the optimizer of all parameters together. */
export async function kernelCounts(dev: Device, shape: ModelShape): Promise<{ perLayer: number; optimizer: number; all: number }> {
  const count = async (layers: number, part: "update" | "gradients"): Promise<number> =>
    (await stepPlan(dev, { ...shape, layers }, "lora", part)).plan.kernels.length;
  const [deep, deeper, gradients] = [await count(4, "update"), await count(5, "update"), await count(4, "gradients")];
  const deeperGradients = await count(5, "gradients");
  // The optimizer's own kernels must not be counted as a layer's, should there be one for each parameter.
  return { perLayer: deeperGradients - gradients, optimizer: deep - gradients, all: deeper };
}

/** Bytes that a plan's kernels read and write. */
export function movedBytes({ statistics }: StepPlan): number {
  return statistics.kernels.reduce((sum, { readBytes, writtenBytes }) => sum + readBytes + writtenBytes, 0);
}

/** Peak bytes on the device during a step, and the least that its plan can do with: what is bound, and liveness' bound for the rest. */
export async function memoryOfStep(dev: Device, shape: ModelShape): Promise<{ peak: number; bound: number; arena: number; least: number }> {
  const step = trainStep(dev, shape, "lora");
  for (let i = 0; i < 3; i++) await step.loss();
  const peak = await peakOfStep(step);
  step.dispose();
  // Only now: it puts a model of its own on the device.
  const { statistics } = await stepPlan(dev, shape, "lora");
  return { peak, bound: statistics.boundBytes, arena: statistics.arenaBytes, least: statistics.lowerBoundBytes };
}

const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

export const planBars: readonly Bar[] = [
  {
    name: "after step 2: new buffers, pipelines, plans",
    brief: "new buffers, pipelines, plans",
    limits: [{ atMost: 0 }, { atMost: 0 }, { atMost: 0 }],
    isTimed: false,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const { buffers, pipelines, plans } = await growthAfterStepTwo(dev, shapes.tiny);
        return { values: [buffers, pipelines, plans], detail: "tiny, steps 3 to 22" };
      }),
  },
  {
    name: "JavaScript time per step, tiny",
    brief: "JavaScript a step, tiny (ms)",
    limits: [{ atMost: 2, unit: "ms" }],
    isTimed: true,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const step = trainStep(dev, shapes.tiny, "lora");
        for (let i = 0; i < 3; i++) await step.loss();
        const times = await withoutKernels(dev, async () => {
          const all: number[] = [];
          for (let i = 0; i < 300; i++) {
            const start = performance.now();
            await step.loss();
            all.push(performance.now() - start);
          }
          return all.slice(100);
        });
        step.dispose();
        return {
          values: [quantile(times, 0.5)],
          detail: "median of 200 replays whose kernels are left out: arguments, results, bindings, reading the loss",
        };
      }),
  },
  {
    name: "kernels per layer per LoRA step / in the optimizer",
    brief: "kernels a layer, in the optimizer",
    limits: [{ atMost: 30 }, { atMost: 4 }],
    isTimed: false,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const { perLayer, optimizer, all } = await kernelCounts(dev, shapes.tiny);
        return { values: [perLayer, optimizer], detail: `5 layers less 4; with the update less without; ${all} in all at 5 layers` };
      }),
  },
  {
    name: "bytes moved per step against the graph's minimum, tiny / small",
    brief: "bytes / minimum, tiny, small",
    limits: [
      { atMost: 1.5, unit: "x" },
      { atMost: 1.5, unit: "x" },
    ],
    isTimed: false,
    async measure(context) {
      const values: number[] = [];
      const details: string[] = [];
      for (const shape of [shapes.tiny, shapes.small]) {
        const step = await context.with("cpu", (dev) => stepPlan(dev, shape, "lora"));
        const [moved, least] = [movedBytes(step), minimumBytes(step.targets)];
        values.push(moved / least);
        details.push(`${mb(moved)} of ${mb(least)}`);
      }
      return { values, detail: details.join(", ") };
    },
  },
  {
    name: "peak memory of a step against liveness' bound, tiny / small",
    brief: "memory / bound, tiny, small",
    limits: [
      { atMost: 1.15, unit: "x" },
      { atMost: 1.15, unit: "x" },
    ],
    isTimed: false,
    async measure(context) {
      const values: number[] = [];
      const details: string[] = [];
      for (const shape of [shapes.tiny, shapes.small]) {
        const { peak, bound, arena, least } = await context.with("cpu", (dev) => memoryOfStep(dev, shape));
        values.push(peak / (bound + least));
        details.push(`${mb(peak)} of ${mb(bound)} bound + ${mb(least)} alive (arena ${mb(arena)})`);
      }
      return { values, detail: details.join(", ") };
    },
  },
];
