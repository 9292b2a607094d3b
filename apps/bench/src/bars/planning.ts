import { smallest } from "@lowrank/tensor";
import { commandLine } from "../repository.js";
import { runCommand } from "../steps/command.js";
import { configPath, type OutlinedModel, type PlanningTask, planStepsApart } from "../steps/planning.js";
import { quantile } from "../timing.js";
import type { Bar } from "./bar.js";

/** Processes of which the median counts. */
const processes = 5;

/** For each step of a task, the median of several processes. */
async function medians(task: PlanningTask, isQuick: boolean): Promise<number[]> {
  const rounds: number[][] = [];
  for (let i = 0; i < (isQuick ? 1 : processes); i++) rounds.push(await planStepsApart(task));
  return task.lengths.map((_, step) =>
    quantile(
      rounds.map((times) => times[step] ?? Number.NaN),
      0.5,
    ),
  );
}

const lengths = [512, 384] as const;

function planningBar(model: OutlinedModel): Bar {
  return {
    name: `planning a LoRA step of ${model}, 1 × 512, all-linear, main thread: first / a further length`,
    brief: `plan ${model}: 1st, further`,
    limits: [
      { atMost: 600, unit: "ms" },
      { atMost: 300, unit: "ms" },
    ],
    isTimed: true,
    async measure({ isQuick }) {
      const values = await medians({ model, lengths }, isQuick);
      return { values, detail: `from the call of the step to backend.run, median of ${isQuick ? 1 : processes} processes` };
    },
  };
}

export const planningBars: readonly Bar[] = [
  planningBar("smollm2-135m"),
  planningBar("llama-3.2-1b"),
  {
    name: "planning smollm2-135m with --memory 0.7 / 60 layers against 30",
    brief: "plan: --memory 0.7, 60/30 layers",
    limits: [
      { atMost: 2000, unit: "ms" },
      { atMost: 2.2, unit: "x" },
    ],
    isTimed: true,
    async measure({ isQuick }) {
      const of = async (task: Partial<PlanningTask>): Promise<number> =>
        (await medians({ model: "smollm2-135m", lengths: [512], ...task }, isQuick))[0] ?? Number.NaN;
      const [tight, deep, plain] = [await of({ memory: 0.7 }), await of({ layers: 60 }), await of({})];
      return { values: [tight, deep / plain], detail: `${deep.toFixed(0)} ms for 60 layers, ${plain.toFixed(0)} for 30` };
    },
  },
  {
    name: "lowrank plan, smollm2-135m, 1 × 512, whole command / first step less a later one, cpu",
    brief: "lowrank plan, first - later step",
    limits: [
      { atMost: 1.5, unit: "s" },
      { atMost: 1.5, unit: "s" },
    ],
    isTimed: true,
    async measure({ isQuick }) {
      const args = ["plan", "--model", configPath("smollm2-135m"), "--batch", "1", "--seq", "512", "--targets", "all-linear"];
      const times: number[] = [];
      for (let i = 0; i < (isQuick ? 1 : processes); i++) times.push((await runCommand(process.execPath, [commandLine, ...args])).seconds);
      const [first = 0, ...later] = await planStepsApart({ model: "smollm2-135m", lengths: [512, 512, 512], runs: true });
      const usual = smallest(later);
      return { values: [quantile(times, 0.5), first - usual], detail: `steps of ${first.toFixed(1)} and ${usual.toFixed(1)} s` };
    },
  },
];
