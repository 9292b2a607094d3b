import { optim } from "@lowrank/autograd";
import { type ParameterReport, parameterReport } from "@lowrank/lora";
import { collate, trainingStep } from "@lowrank/models";
import { type Plan, type PlannedFor, planningDevice } from "@lowrank/tensor";
import type { CommandContext } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { revisionFlag } from "../hub.js";
import { applyMethod, fullMethod, methodFlags, methodNames, methodOf, methodOptions, refuseMethodFlags } from "../method.js";
import { deviceBytes, jsonFlag, memoryFlag, quantizedFull, quantizeFlag } from "../session.js";
import { type PlannedModel, plannedModel, weightTypes } from "./model.js";

/** What says which step of training is meant, where no model is built. */
export const outlineFlags = {
  model: {
    type: "text",
    value: "DIR|FILE.gguf|config.json",
    path: "read",
    help: "a model's folder, its GGUF file, its config.json alone, or its name on the hub; of weights no more than headers are read",
    required: true,
  },
  revision: revisionFlag,
  method: { type: "choice", choices: methodNames, help: "what would be trained", default: "lora" },
  ...methodFlags,
  batch: { type: "integer", min: 1, help: "rows a step", default: 8 },
  seq: { type: "integer", min: 2, help: "tokens a row (default: the model's context)" },
  dtype: {
    type: "choice",
    choices: weightTypes,
    help: "how frozen weights are stored (default: as in the files, else as config.json says)",
  },
  quantize: quantizeFlag,
  memory: memoryFlag,
  json: jsonFlag,
} as const satisfies Flags;

/** Tokens of a step that can be planned; their ids are held, whatever they are. */
const mostTokens = 2 ** 24;

/** A step of training that was planned and not run. */
export interface StepOutline {
  /** Every plan that the step runs; the step's own is the last. */
  readonly plans: readonly Plan[];
  readonly report: ParameterReport;
  readonly optimizerBytes: number;
  readonly peakBytes: number;
  readonly tokenCount: number;
  /** Tokens of each row, and the most that the model can look at. */
  readonly length: number;
  readonly contextLength: number;
  /** Virtual tokens that every row is longer by; those of a prefix have keys and values alone, of the size of a parameter. */
  readonly virtualLength: number;
  /** The peak of a step of other rows, planned as this one was; what is known of its kernels serves again. */
  peakOf(rows: number, length: number): Promise<number>;
}

/** The model that the flags name. */
export const modelOfFlags = ({ values, output, signal }: CommandContext<typeof outlineFlags>): Promise<PlannedModel> =>
  plannedModel(values.model, { revision: values.revision, output, signal });

/** Plans a step of training for the kernels of a device, within --memory or else `budgetBytes`. Rejects with UsageError where the flags ask for what cannot be. */
export async function outlinedStep(
  like: PlannedFor,
  planned: PlannedModel,
  { values, given, output }: CommandContext<typeof outlineFlags>,
  budgetBytes?: number,
): Promise<StepOutline> {
  const isFull = methodOf(values.method) === fullMethod;
  if (isFull) refuseMethodFlags(given);
  const quantize = values.quantize === undefined || values.quantize === "none" ? null : values.quantize;
  if (isFull && quantize !== null) throw quantizedFull();
  const { device, plans, startPeak, initializing } = planningDevice(
    like,
    values.memory === undefined ? budgetBytes : deviceBytes(values.memory, like.name),
  );
  const model = await planned.outline(device, { dtype: isFull ? "f32" : values.dtype, quantize });
  const length = values.seq ?? model.contextLength;
  if (length > model.contextLength)
    throw new UsageError(`--seq ${length} is longer than the model's context of ${model.contextLength}. Plan for fewer tokens.`);
  if (values.batch * length > mostTokens)
    throw new UsageError(
      `--batch ${values.batch} times ${values.seq === undefined ? "the model's context of" : "--seq"} ${length} is more than ${mostTokens} tokens. Plan for fewer rows (--batch) or shorter ones (--seq).`,
    );
  // Weights count as soon as something asks for their memory.
  for (const weight of model.namedParameters().values())
    for (const { storage } of weight.packing ? Object.values(weight.packing.parts) : [weight]) storage?.buffer;
  const warn = (message: string): void => output.note(`warning: ${message}`);
  const adapter = isFull
    ? null
    : initializing(() =>
        applyMethod(model, values.method, methodOptions(values.method, model, values, given, { steps: 1000, warn }), {
          seed: 0,
          baseModel: "",
          onWarning: warn,
        }),
      );
  initializing(() => adapter?.outline());
  const named = adapter ? adapter.namedParameters() : model.namedParameters();
  const report = parameterReport(model, adapter ?? "full");
  const optimizer = optim.adamw(named, { weightDecay: 0 });
  const step = trainingStep({ model, parameters: named, ...(adapter ? { rules: adapter.training } : {}), optimizer, maxGradNorm: 1 });
  const run = async (rowCount: number, length: number): Promise<number> => {
    const ids: number[] = new Array(length).fill(0);
    const rows = Array.from({ length: rowCount }, (_, line) => ({ line, ids, labels: ids }));
    await step.run([collate(rows, { layout: model.batchLayout, lengthLimit: length })], 1e-3);
    return device.counters.peakBytes;
  };
  const peakBytes = await run(values.batch, length);
  return {
    plans: [...plans],
    report,
    optimizerBytes: optimizer.stateBytes,
    peakBytes,
    tokenCount: values.batch * length,
    length,
    contextLength: model.contextLength,
    virtualLength: model.virtualTokens.prompt?.length ?? 0,
    peakOf(rows, length) {
      startPeak();
      return run(rows, length);
    },
  };
}
