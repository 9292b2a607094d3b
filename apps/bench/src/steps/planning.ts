import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { optim } from "@lowrank/autograd";
import { applyAdapter } from "@lowrank/lora";
import { collate, modelOutline, trainingStep } from "@lowrank/models";
import { device, planningDevice } from "@lowrank/tensor";
import { runCommand } from "./command.js";

/** Checkpoints of which only the shape counts, by the name of their config in `configs`. */
export type OutlinedModel = "smollm2-135m" | "llama-3.2-1b";

/** What to plan: a LoRA step on all linear layers, one row. */
export interface PlanningTask {
  readonly model: OutlinedModel;
  /** Instead of those that the checkpoint has. */
  readonly layers?: number;
  /** Tokens of the row, of each step after the other. */
  readonly lengths: readonly number[];
  /** GB that the step may take. */
  readonly memory?: number;
  /** Runs the steps on the cpu, on weights of zeros, instead of planning alone. */
  readonly runs?: boolean;
}

/** Milliseconds that the main thread of this process has computed; elsewhere than on Linux those of all its threads. */
function mainThreadMs(): number {
  try {
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1e6;
  } catch {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  }
}

/** Milliseconds of the main thread for each step, from its call to where the backend runs it; where steps run, seconds of each instead. */
export async function planSteps({ model: name, layers, lengths, memory, runs = false }: PlanningTask): Promise<number[]> {
  const config = JSON.parse(readFileSync(new URL(`../../configs/${name}.json`, import.meta.url), "utf8")) as Record<string, unknown>;
  if (layers !== undefined) config["num_hidden_layers"] = layers;
  const cpu = await device("cpu");
  const dev = runs ? cpu : planningDevice(cpu, memory === undefined ? undefined : memory * 1e9).device;
  const model = modelOutline(config, { device: dev, dtype: "bf16" });
  // Weights count as soon as something asks for their memory.
  for (const weight of model.namedParameters().values()) weight.storage?.buffer;
  const adapter = applyAdapter(model, { method: "lora", rank: 8, alpha: 16, targets: "all-linear" });
  const parameters = adapter.namedParameters();
  const optimizer = optim.adamw(parameters, { weightDecay: 0 });
  const step = trainingStep({ model, parameters, rules: adapter.training, optimizer, maxGradNorm: 1 });
  const times: number[] = [];
  for (const length of lengths) {
    const ids = new Array<number>(length).fill(0);
    const batch = collate([{ line: 0, ids, labels: ids }], { layout: model.batchLayout, lengthLimit: length });
    const [start, began] = [mainThreadMs(), performance.now()];
    await step.run([batch], 1e-3);
    times.push(runs ? (performance.now() - began) / 1000 : mainThreadMs() - start);
  }
  cpu.dispose();
  return times;
}

/** `planSteps` in a process of its own, which knows no kernel yet. */
export async function planStepsApart(task: PlanningTask): Promise<number[]> {
  const script = `import { planSteps } from ${JSON.stringify(import.meta.url)}; console.log(JSON.stringify(await planSteps(${JSON.stringify(task)})));`;
  const { output } = await runCommand(process.execPath, ["--input-type=module", "--eval", script]);
  return JSON.parse(output.trim().split("\n").at(-1) ?? "[]") as number[];
}

/** The path of a model's config. */
export function configPath(model: OutlinedModel): string {
  return fileURLToPath(new URL(`../../configs/${model}.json`, import.meta.url));
}
