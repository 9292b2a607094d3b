import { type Adapter, borrowedTargets, type ParameterReport, parameterReport } from "@lowrank/lora";
import { type DataSet, type Examples, type LoadedModel, longestLength, type PreviewRow, previewRow, type RunState } from "@lowrank/models";
import type { Device, Tensor } from "@lowrank/tensor";
import { contentsOf } from "../changes.js";
import { dataSettings } from "../data/open.js";
import { defaultEpochs, defaultLearningRate, defaultWarmup } from "../defaults.js";
import { UsageError } from "../failure.js";
import { baseOf } from "../hub.js";
import { applyMethod, fullMethod, hasPlainForm, methodOf, methodOptions, optionSettings, refuseMethodFlags } from "../method.js";
import type { Output } from "../output.js";
import { contextOf, initializeAdapter } from "../runs.js";
import { openModel, quantizedFull } from "../session.js";
import type { TrainValues } from "./flags.js";
import { openRows } from "./rows.js";

/** A run that is ready to begin: what is trained, on what, for how long and how fast. */
export interface Setup {
  readonly model: LoadedModel["model"];
  /** Null for full fine-tuning. */
  readonly adapter: Adapter | null;
  /** The method's. */
  readonly options: Readonly<Record<string, unknown>>;
  readonly data: DataSet<Examples>;
  readonly heldOut: DataSet<Examples> | null;
  /** The first row as text, with what is in the loss. */
  readonly firstRow: PreviewRow | null;
  /** The template that wrote conversations among the rows; null where there are none. */
  readonly chatTemplate: string | null;
  readonly lengthLimit: number;
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly report: ParameterReport;
  readonly steps: number;
  readonly rowsPerStep: number;
  readonly peak: number;
  readonly warmup: number;
  readonly settings: RunState["settings"];
  readonly hashes: Readonly<Record<string, string>>;
}

/** What a setup takes of the command that it belongs to. */
interface SetupContext {
  readonly device: Device;
  /** The flags that were written out. */
  readonly given: ReadonlySet<string>;
  readonly output: Output;
  readonly signal: AbortSignal;
}

/** What a resumed run must have in common with the run it resumes. */
function settingsOf(
  values: TrainValues,
  options: Readonly<Record<string, unknown>>,
  { peak, warmup, steps }: { readonly peak: number; readonly warmup: number; readonly steps: number },
): RunState["settings"] {
  const { model, method, seed, schedule } = values;
  return {
    model,
    ...dataSettings(values),
    ...(values.quantize === undefined || values.quantize === "none" ? {} : { quantize: values.quantize }),
    ...(values["eval-split"] === undefined ? {} : { "eval-split": values["eval-split"] }),
    method,
    ...optionSettings(options),
    seed,
    steps,
    lr: peak,
    schedule,
    warmup,
    "batch-size": values["batch-size"],
    accumulate: values.accumulate,
    "max-length": values["max-length"] ?? null,
    "weight-decay": values["weight-decay"],
    "max-grad-norm": values["max-grad-norm"],
  };
}

/** Steps, and how the rate rises and falls over them. Throws UsageError for a warmup that leaves nothing. */
function paceOf(
  values: TrainValues,
  model: LoadedModel["model"],
  rowCount: number,
): Pick<Setup, "steps" | "rowsPerStep" | "peak" | "warmup"> {
  const rowsPerStep = values["batch-size"] * values.accumulate;
  const steps = values.steps ?? Math.max(1, Math.ceil(((values.epochs ?? defaultEpochs(rowCount, model)) * rowCount) / rowsPerStep));
  const warmup = values.warmup ?? defaultWarmup(steps);
  if (warmup >= steps && values.schedule !== "constant")
    throw new UsageError(`--warmup ${warmup} leaves nothing of ${steps} steps. Warm up for fewer.`);
  return { steps, rowsPerStep, peak: values.lr ?? defaultLearningRate(values.method, model), warmup };
}

/** Opens the model and the rows and puts the method on it. Rejects with UsageError for flags that do not go together. */
export async function setUp(values: TrainValues, { device, given, output, signal }: SetupContext): Promise<Setup> {
  const { method, seed } = values;
  const isFull = methodOf(method) === fullMethod;
  if (isFull) refuseMethodFlags(given);
  else if (given.has("dtype"))
    throw new UsageError(
      `--dtype says how --method full stores the model's weights, and ${method} leaves them alone. Leave it out; \`lowrank merge\` has one too.`,
    );
  if (values["as-plain-lora"] && !hasPlainForm(method))
    throw new UsageError(`--as-plain-lora is for methods with pairs of LoRA, and ${method} has none. Leave it out.`);
  const { revision, quantize = "none" } = values;
  if (isFull && quantize !== "none") throw quantizedFull();
  const loaded = await openModel(values.model, device, { ...(isFull && { dtype: "f32" }), revision, quantize, output, signal });
  const { model } = loaded;
  const onWarning = (message: string): void => output.note(`warning: ${message}`);
  const options = isFull ? {} : methodOptions(method, model, values, given, { steps: values.steps, warn: onWarning });
  const adapter = isFull ? null : applyMethod(model, method, options, { seed, ...baseOf(values), onWarning });
  const borrowed = adapter && options["targets"] === undefined ? borrowedTargets(model, adapter) : null;
  if (borrowed)
    output.note(
      `targets: ${borrowed.join(", ")}, the attention's own; PEFT has no default for ${String(loaded.config.model_type)}. --targets names others.`,
    );
  const { data, heldOut } = await openRows(values, loaded, output, signal);

  const first = data.examples.at(0);
  const longest = Math.max(longestLength(data.examples), heldOut ? longestLength(heldOut.examples) : 0);
  const lengthLimit = Math.min(contextOf(model), Math.max(longest, 2));
  const batches = { batchSize: values["batch-size"], seed, lengthLimit };
  if (adapter) await initializeAdapter(adapter, model, data.examples, batches, output);
  const pace = paceOf(values, model, data.examples.length);
  return {
    model,
    adapter,
    options,
    data,
    heldOut,
    firstRow: first ? previewRow(first, loaded.tokenizer) : null,
    chatTemplate: data.notes.conversationCount > 0 ? loaded.tokenizer.chatTemplate : null,
    lengthLimit,
    parameters: adapter ? adapter.namedParameters() : model.namedParameters(),
    report: parameterReport(model, adapter ?? "full"),
    ...pace,
    settings: settingsOf(values, options, pace),
    hashes: contentsOf(loaded, data, heldOut),
  };
}
