import { absentGpu, type PlannedFor, planStatistics } from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { cardOf, cards, leastSeconds } from "../plan/cards.js";
import { type Fitting, growthOf } from "../plan/growth.js";
import { modelOfFlags, outlinedStep, outlineFlags } from "../plan/outline.js";
import { deviceBytes, ownProcessBytes, withDevice } from "../session.js";
import { bytes, grouped, tableLines } from "../terminal/format.js";

const flags = {
  ...outlineFlags,
  device: { type: "choice", choices: ["cpu", "webgpu"], help: "for whose kernels to plan", default: "cpu" },
  card: { type: "text", value: "NAME", help: `a GPU that need not be here: ${cards.map(({ name }) => name).join(", ")}` },
  "device-memory": { type: "number", above: 0, help: "GB of memory of a GPU that need not be here" },
} as const satisfies Flags;

/** What training would take, and what one step would do. */
interface TrainingPlan {
  readonly weightBytes: { readonly frozen: number; readonly trained: number };
  readonly optimizerBytes: number;
  /** Activations, gradients and everything else that lives within a step. */
  readonly stepBytes: number;
  readonly peakBytes: number;
  /** What the process would have resident at most, whose memory is the cpu's; null where the device has its own. */
  readonly processBytes: number | null;
  readonly parameters: { readonly frozen: number; readonly trained: number };
  readonly kernelCount: number;
  readonly operations: number;
  readonly movedBytes: number;
  /** Rows and tokens of each that a step was planned for. */
  readonly batch: number;
  readonly length: number;
  /** The memory of a GPU that is not here, where it was planned for one. */
  readonly deviceMemoryBytes: number | null;
  /** What fits the memory of the device, and how much that is; null where planning takes long. */
  readonly most: (Fitting & { readonly bytes: number }) | null;
  readonly cards: readonly (Partial<Fitting> & {
    readonly name: string;
    readonly seconds: number;
    readonly tokensPerSecond: number;
    readonly fits: boolean;
  })[];
}

async function planned(like: PlannedFor, deviceMemoryBytes: number | null, context: CommandContext<typeof flags>): Promise<TrainingPlan> {
  const begun = process.cpuUsage();
  const model = await modelOfFlags(context);
  const first = await outlinedStep(like, model, context, deviceMemoryBytes ?? undefined);
  const { plans, report, optimizerBytes, peakBytes, tokenCount, length } = first;
  const { memory } = context.values;
  const isFree = memory === undefined && deviceMemoryBytes === null;
  const fitting = await growthOf(like, model, context, { first, isFree, tookMs: process.cpuUsage(begun).user / 1000 });
  const room = memory === undefined ? (deviceMemoryBytes ?? like.backend.limits.budgetBytes) : deviceBytes(memory, like.name);
  const plan = plans.at(-1);
  if (!plan) throw new Error("plan: the training step made no plan.");
  const { kernels } = planStatistics(plan);
  return {
    weightBytes: { frozen: report.weightBytes.frozen, trained: report.weightBytes.trainable },
    optimizerBytes,
    stepBytes: plan.arenaBytes,
    peakBytes,
    processBytes: like.name === "cpu" ? peakBytes + ownProcessBytes(kernels.length) : null,
    parameters: { frozen: report.frozen, trained: report.trainable },
    kernelCount: kernels.length,
    operations: kernels.reduce((sum, { operations }) => sum + operations, 0),
    movedBytes: kernels.reduce((sum, { readBytes, writtenBytes }) => sum + readBytes + writtenBytes, 0),
    batch: context.values.batch,
    length,
    deviceMemoryBytes,
    most: fitting && { ...fitting(room), bytes: memory === undefined ? room : memory * 1e9 },
    cards: cards.map((card) => {
      const seconds = leastSeconds(kernels, card);
      return {
        ...fitting?.(card.memory * 1e9),
        name: card.name,
        seconds,
        tokensPerSecond: tokenCount / seconds,
        fits: peakBytes <= card.memory * 1e9,
      };
    }),
  };
}

/** Floating-point operations in the largest unit below. */
function flops(count: number): string {
  return count >= 1e13 ? `${grouped(count / 1e12)} TFLOP` : `${(count / 1e9).toFixed(1)} GFLOP`;
}

/** Milliseconds with three significant digits, never as a power of ten. */
function milliseconds(seconds: number): string {
  const ms = Number((1000 * seconds).toPrecision(3));
  return ms >= 100 ? grouped(ms) : ms.toPrecision(3);
}

async function runPlan(context: CommandContext<typeof flags>): Promise<number> {
  const { values, given, output } = context;
  const card = values.card === undefined ? null : cardOf(values.card);
  const memory = values["device-memory"] ?? card?.memory;
  if (memory !== undefined && given.has("device"))
    throw new UsageError(
      `--device is for a device that is here, and ${card ? "--card" : "--device-memory"} for one that need not be. Keep one of them.`,
    );
  const plan =
    memory === undefined
      ? await withDevice(values.device, null, (like) => planned(like, null, context))
      : await planned(absentGpu(card?.name ?? "a GPU", memory * 1e9), memory * 1e9, context);
  const { parameters, weightBytes } = plan;
  const share = (100 * parameters.trained) / (parameters.trained + parameters.frozen);
  const whole = values.seq === undefined ? " (the model's whole context; --seq plans for fewer)" : "";
  output.say(`a step of ${grouped(plan.batch)} ${plan.batch === 1 ? "row" : "rows"} of ${grouped(plan.length)} tokens${whole}`);
  output.say(`${grouped(parameters.frozen)} parameters frozen, ${grouped(parameters.trained)} trained (${share.toFixed(2)} %)`);
  for (const line of tableLines(
    [
      ["memory", ""],
      ["frozen weights", bytes(weightBytes.frozen)],
      ["trained weights", bytes(weightBytes.trained)],
      ["optimizer state", bytes(plan.optimizerBytes)],
      ["a step: activations, gradients", bytes(plan.stepBytes)],
      ["peak, batches and workspace included", bytes(plan.peakBytes)],
      ...(plan.processBytes === null ? [] : [["the process with all that, Node included", bytes(plan.processBytes)]]),
    ],
    { areNumbers: true, width: output.tableColumns },
  ))
    output.say(line);
  if (values.memory !== undefined && plan.peakBytes > deviceBytes(values.memory, values.device))
    output.note(`warning: this does not fit ${bytes(values.memory * 1e9)}, however much is rematerialized. Plan for fewer rows or tokens.`);
  if (plan.deviceMemoryBytes !== null)
    output.say(
      `${plan.peakBytes <= plan.deviceMemoryBytes ? "fits" : "does not fit"} ${card?.name ?? "a GPU"} with ${bytes(plan.deviceMemoryBytes)}, of which other programs may take a part`,
    );
  if (plan.most)
    output.say(
      `in ${bytes(plan.most.bytes)} fit ${grouped(plan.most.rows)} ${plan.most.rows === 1 ? "row" : "rows"} of ${grouped(plan.length)} tokens, or ${grouped(plan.batch)} of ${grouped(plan.most.length)}, with nothing rematerialized`,
    );
  output.say(`a step: ${grouped(plan.kernelCount)} kernels, ${flops(plan.operations)} in products, ${bytes(plan.movedBytes)} moved`);
  output.say("projection, no measurement: the least time at a card's published f32 and memory peaks");
  for (const line of tableLines(
    [
      ["card", "ms a step", "tokens/s", "fits", ...(plan.most ? ["rows", "tokens a row"] : [])],
      ...plan.cards.map(({ name, seconds, tokensPerSecond, fits, rows, length }) => [
        name,
        milliseconds(seconds),
        grouped(Number(tokensPerSecond.toPrecision(3))),
        fits ? "yes" : "no",
        ...(rows === undefined || length === undefined ? [] : [grouped(rows), grouped(length)]),
      ]),
    ],
    { areNumbers: true, width: output.tableColumns },
  ))
    output.say(line);
  output.result({ ...plan });
  return 0;
}

export const planCommand = defineCommand({
  name: "plan",
  makes: "text",
  summary: "What training would take, by kind of memory, without building the model.",
  flags,
  examples: [
    "lowrank plan --model config.json --batch 1 --seq 1024",
    "lowrank plan --model ./model --method full --batch 8 --seq 256 --device webgpu",
    "lowrank plan --model ./model --batch 4 --seq 1024 --card 'RTX 4090'",
  ],
  run: runPlan,
});
