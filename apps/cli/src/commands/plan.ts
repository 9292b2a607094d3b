import { stat } from "node:fs/promises";
import { join } from "node:path";
import { optim } from "@lowrank/autograd";
import { parameterReport } from "@lowrank/lora";
import { collate, modelOutline, readJson, trainingStep } from "@lowrank/models";
import { type Device, type DType, nodeFiles, planningDevice, planStatistics } from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { applyMethod, fullMethod, methodFlags, methodNames, methodOf, methodOptions, refuseMethodFlags } from "../method.js";
import { cards, leastSeconds } from "../plan/cards.js";
import { jsonFlag, memoryFlag, withDevice } from "../session.js";
import { bytes, grouped, tableLines } from "../terminal/format.js";

const weightTypes = ["f32", "bf16", "f16"] as const satisfies readonly DType[];

const flags = {
  model: {
    type: "text",
    value: "DIR|config.json",
    help: "a model's folder or its config.json alone; weights are not read",
    required: true,
  },
  method: { type: "choice", choices: methodNames, help: "what would be trained", default: "lora" },
  ...methodFlags,
  batch: { type: "integer", min: 1, help: "rows a step", default: 8 },
  seq: { type: "integer", min: 2, help: "tokens a row (default: the model's context)" },
  dtype: { type: "choice", choices: weightTypes, help: "how frozen weights are stored (default: as config.json says, else f32)" },
  device: { type: "choice", choices: ["cpu", "webgpu"], help: "for whose kernels to plan", default: "cpu" },
  memory: memoryFlag,
  json: jsonFlag,
} as const satisfies Flags;

/** The config.json of a folder, or of a path to it. Rejects with UsageError where there is none. */
async function configAt(path: string): Promise<Readonly<Record<string, unknown>>> {
  const isFolder = await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
  const file = isFolder ? join(path, "config.json") : path;
  const config = await readJson(nodeFiles, file);
  if (!config) throw new UsageError(`There is no ${file}. Give a model's folder or the path of its config.json.`);
  return config;
}

/** How a checkpoint of this config stores its weights. */
function storedType(config: Readonly<Record<string, unknown>>): (typeof weightTypes)[number] {
  const named = config["dtype"] ?? config["torch_dtype"];
  return named === "bfloat16" ? "bf16" : named === "float16" ? "f16" : "f32";
}

/** What training would take, and what one step would do. */
interface TrainingPlan {
  readonly weightBytes: { readonly frozen: number; readonly trained: number };
  readonly optimizerBytes: number;
  /** Activations, gradients and everything else that lives within a step. */
  readonly stepBytes: number;
  readonly peakBytes: number;
  readonly parameters: { readonly frozen: number; readonly trained: number };
  readonly kernelCount: number;
  readonly operations: number;
  readonly movedBytes: number;
  readonly cards: readonly { readonly name: string; readonly seconds: number; readonly tokensPerSecond: number }[];
}

async function planned(like: Device, { values, given, output }: CommandContext<typeof flags>): Promise<TrainingPlan> {
  const config = await configAt(values.model);
  const isFull = methodOf(values.method) === fullMethod;
  if (isFull) refuseMethodFlags(given);
  const { device, plans } = planningDevice(like, ...(values.memory === undefined ? [] : [values.memory * 1e9]));
  const model = modelOutline(config, { device, dtype: isFull ? "f32" : (values.dtype ?? storedType(config)) });
  const length = values.seq ?? model.contextLength;
  if (length > model.contextLength)
    throw new UsageError(`--seq ${length} is longer than the model's context of ${model.contextLength}. Plan for fewer tokens.`);
  // Weights count as soon as something asks for their memory.
  for (const weight of model.namedParameters().values()) weight.storage?.buffer;
  const warn = (message: string): void => output.note(`warning: ${message}`);
  const adapter = isFull
    ? null
    : applyMethod(model, values.method, methodOptions(values.method, model, values, given, { steps: 1000, warn }), {
        seed: 0,
        baseModel: "",
        onWarning: warn,
      });
  const named = adapter ? adapter.namedParameters() : model.namedParameters();
  const report = parameterReport(model, adapter ?? "full");
  const optimizer = optim.adamw(named, { weightDecay: 0 });
  const step = trainingStep({ model, parameters: named, ...(adapter ? { rules: adapter.training } : {}), optimizer, maxGradNorm: 1 });
  const count = values.batch * length;
  const ids: number[] = new Array(length).fill(0);
  const rows = Array.from({ length: values.batch }, (_, line) => ({ line, ids, labels: ids }));
  await step.run([collate(rows, { layout: model.batchLayout, lengthLimit: length })], 1e-3);
  const plan = plans.at(-1);
  if (!plan) throw new Error("plan: the training step made no plan.");
  const { kernels } = planStatistics(plan);
  return {
    weightBytes: { frozen: report.weightBytes.frozen, trained: report.weightBytes.trainable },
    optimizerBytes: optimizer.stateBytes,
    stepBytes: plan.arenaBytes,
    peakBytes: device.counters.peakBytes,
    parameters: { frozen: report.frozen, trained: report.trainable },
    kernelCount: kernels.length,
    operations: kernels.reduce((sum, { operations }) => sum + operations, 0),
    movedBytes: kernels.reduce((sum, { readBytes, writtenBytes }) => sum + readBytes + writtenBytes, 0),
    cards: cards.map((card) => {
      const seconds = leastSeconds(kernels, card);
      return { name: card.name, seconds, tokensPerSecond: count / seconds };
    }),
  };
}

async function runPlan(context: CommandContext<typeof flags>): Promise<number> {
  const { values, output } = context;
  const plan = await withDevice(values.device, null, (like) => planned(like, context));
  const { parameters, weightBytes } = plan;
  const share = (100 * parameters.trained) / (parameters.trained + parameters.frozen);
  output.say(`${grouped(parameters.frozen)} parameters frozen, ${grouped(parameters.trained)} trained (${share.toFixed(2)} %)`);
  for (const line of tableLines(
    [
      ["memory", ""],
      ["frozen weights", bytes(weightBytes.frozen)],
      ["trained weights", bytes(weightBytes.trained)],
      ["optimizer state", bytes(plan.optimizerBytes)],
      ["a step: activations, gradients", bytes(plan.stepBytes)],
      ["peak, batches and workspace included", bytes(plan.peakBytes)],
    ],
    true,
  ))
    output.say(line);
  if (values.memory !== undefined && plan.peakBytes > values.memory * 1e9)
    output.note(`warning: this does not fit ${bytes(values.memory * 1e9)}, however much is computed twice. Plan for fewer rows or tokens.`);
  output.say(
    `a step: ${grouped(plan.kernelCount)} kernels, ${(plan.operations / 1e9).toFixed(1)} GFLOP in products, ${bytes(plan.movedBytes)} moved`,
  );
  output.say("projection, no measurement: the least time at a card's published f32 and memory peaks");
  for (const line of tableLines(
    [
      ["card", "ms a step", "tokens/s"],
      ...plan.cards.map(({ name, seconds, tokensPerSecond }) => [
        name,
        (1000 * seconds).toPrecision(3),
        grouped(Number(tokensPerSecond.toPrecision(3))),
      ]),
    ],
    true,
  ))
    output.say(line);
  output.result({ ...plan });
  return 0;
}

export const planCommand = defineCommand({
  name: "plan",
  summary: "What training would take, by kind of memory, without building the model.",
  flags,
  examples: [
    "lowrank plan --model config.json --batch 1 --seq 1024",
    "lowrank plan --model ./model --method full --batch 8 --seq 256 --device webgpu",
  ],
  run: runPlan,
});
