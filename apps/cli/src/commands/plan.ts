import { type Device, planStatistics } from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import type { Flags } from "../flags.js";
import { cards, leastSeconds } from "../plan/cards.js";
import { outlinedStep, outlineFlags } from "../plan/outline.js";
import { withDevice } from "../session.js";
import { bytes, grouped, tableLines } from "../terminal/format.js";

const flags = {
  ...outlineFlags,
  device: { type: "choice", choices: ["cpu", "webgpu"], help: "for whose kernels to plan", default: "cpu" },
} as const satisfies Flags;

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

async function planned(like: Device, context: CommandContext<typeof flags>): Promise<TrainingPlan> {
  const { plans, report, optimizerBytes, peakBytes, tokenCount } = await outlinedStep(like, context);
  const plan = plans.at(-1);
  if (!plan) throw new Error("plan: the training step made no plan.");
  const { kernels } = planStatistics(plan);
  return {
    weightBytes: { frozen: report.weightBytes.frozen, trained: report.weightBytes.trainable },
    optimizerBytes,
    stepBytes: plan.arenaBytes,
    peakBytes,
    parameters: { frozen: report.frozen, trained: report.trainable },
    kernelCount: kernels.length,
    operations: kernels.reduce((sum, { operations }) => sum + operations, 0),
    movedBytes: kernels.reduce((sum, { readBytes, writtenBytes }) => sum + readBytes + writtenBytes, 0),
    cards: cards.map((card) => {
      const seconds = leastSeconds(kernels, card);
      return { name: card.name, seconds, tokensPerSecond: tokenCount / seconds };
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
    { areNumbers: true, width: output.tableColumns },
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
  ],
  run: runPlan,
});
