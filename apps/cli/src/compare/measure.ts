import { type Adapter, AdapterError, merge, type ParameterReport, parameterReport, unmerge } from "@lowrank/lora";
import {
  type Batch,
  type CausalLM,
  type DataSet,
  type Example,
  type Examples,
  evaluationSequence,
  evaluator,
  ignoredLabel,
  type LoadedModel,
  longestLength,
  type Tokenizer,
} from "@lowrank/models";
import { type Answer, exactMatch } from "../eval/answers.js";
import { UsageError } from "../failure.js";
import { contextOf } from "../runs.js";
import { type DecodingState, decodingLatency } from "./latency.js";
import type { Stage } from "./stage.js";

/** What decoding a token takes, beside what the base takes in the same rounds. */
export interface DecodingResult {
  readonly baseMs: number;
  readonly methodMs: number;
  readonly ratio: number;
  /** Null where the method does not become part of the weights; `whyNotMerged` says why. */
  readonly mergedMs: number | null;
  readonly mergedRatio: number | null;
  readonly whyNotMerged: string | null;
  readonly rounds: number;
}

/** How good a model is on the task and on other text. */
export interface Quality {
  readonly evalLoss: number;
  /** Null where rows have no completion to compare with. */
  readonly exactMatch: number | null;
  readonly generalLoss: number;
  /** Answers to a few held-out prompts, the same ones for every method; absent where rows have no completions. */
  readonly samples?: readonly Answer[];
}

/** Held-out prompts whose answers are kept. */
const sampleCount = 4;

/** A few answers, evenly spread over the rows. */
function samplesOf(answers: readonly Answer[]): Answer[] {
  const count = Math.min(sampleCount, answers.length);
  return Array.from({ length: count }, (_, i) => answers[Math.floor((i * answers.length) / count)] as Answer); // the index is below the length
}

/** A method's row of the comparison. */
export interface MethodResult extends Quality {
  readonly method: string;
  readonly settings: Readonly<Record<string, string | number | boolean | null>>;
  readonly parameters: ParameterReport;
  readonly peakBytes: number;
  readonly stepMs: number;
  readonly trainLoss: number;
  readonly decoding: DecodingResult;
  /** Positions of the context that it takes. */
  readonly contextTokens: number;
}

/** The mean loss over the loss tokens of some rows; `onBatch` is told of each batch before it is measured. Rejects with TrainingError as `evaluator`. */
export async function lossOn(model: CausalLM, examples: Examples, lengthLimit: number, onBatch: () => void = () => {}): Promise<number> {
  const meter = evaluator(model);
  const batches = evaluationSequence(examples, 16, { layout: model.batchLayout, lengthLimit });
  function* told(): Generator<Batch> {
    for (const batch of batches) {
      onBatch();
      yield batch;
    }
  }
  try {
    return (await meter.run(told())).loss;
  } finally {
    meter.dispose();
  }
}

/** Measures the model as it is now. Rejects with the signal's reason once that is aborted. */
export async function qualityOf(
  loaded: Pick<LoadedModel, "model"> & { readonly tokenizer: Tokenizer },
  heldOut: DataSet<Examples>,
  general: Examples,
  lengthLimit: number,
  signal: AbortSignal,
  stage: Stage,
): Promise<Quality> {
  const { model } = loaded;
  const batchesOf = (what: string): (() => void) => {
    let count = 0;
    stage(what);
    return () => {
      signal.throwIfAborted();
      stage(what, `batch ${++count}`);
    };
  };
  const generalLimit = Math.min(contextOf(model), longestLength(general));
  let match: Awaited<ReturnType<typeof exactMatch>> | null = null;
  try {
    const what = "answers to held-out prompts";
    stage(what);
    match = await exactMatch(loaded, heldOut, { signal, output: { draw: (line) => void (line !== "" && stage(what, line)) } });
  } catch (error) {
    if (!(error instanceof UsageError)) throw error; // rows without completions: there is no answer to compare with
  }
  return {
    evalLoss: await lossOn(model, heldOut.examples, lengthLimit, batchesOf("loss on held-out rows")),
    exactMatch: match?.share ?? null,
    generalLoss: await lossOn(model, general, generalLimit, batchesOf("loss on general text")),
    ...(match && { samples: samplesOf(match.answers) }),
  };
}

/** What decoding is timed on: a prompt and how many tokens follow it. */
export interface DecodingTask {
  readonly prompt: readonly number[];
  readonly tokenCount: number;
  readonly seconds: number;
  readonly signal: AbortSignal;
}

/** A row's prompt, or the first half of a text. */
export function promptOf({ ids, labels }: Example): number[] {
  const border = labels.findIndex((label) => label !== ignoredLabel);
  return ids.slice(0, border > 0 ? border : Math.max(1, Math.floor(ids.length / 2)));
}

/** Times a model with an adapter against itself without it, and merged where that is possible. The adapter is enabled afterwards. */
export async function adapterDecoding(model: CausalLM, adapter: Adapter, task: DecodingTask): Promise<DecodingResult> {
  const whyNotMerged = mergeProblem(adapter);
  const unmerged = (): void => {
    if (adapter.isMerged) unmerge(adapter);
  };
  const base: DecodingState = {
    model,
    enter() {
      unmerged();
      adapter.disable();
    },
  };
  const method: DecodingState = {
    model,
    enter() {
      unmerged();
      adapter.enable();
    },
  };
  const merged: DecodingState = {
    model,
    enter() {
      if (!adapter.isMerged) merge(adapter);
    },
  };
  const states = whyNotMerged === null ? [base, method, merged] : [base, method];
  const { tokenMs, ratios, rounds } = await decodingLatency(states, task.prompt, task.tokenCount, task);
  method.enter();
  return {
    baseMs: tokenMs[0] ?? Number.NaN,
    methodMs: tokenMs[1] ?? Number.NaN,
    ratio: ratios[1] ?? Number.NaN,
    mergedMs: tokenMs[2] ?? null,
    mergedRatio: ratios[2] ?? null,
    whyNotMerged,
    rounds,
  };
}

/** Times a fully trained model against a fresh copy of its base: there is nothing to merge, its weights are the base's own. */
export async function fullDecoding(model: CausalLM, base: CausalLM, task: DecodingTask): Promise<DecodingResult> {
  const states = [base, model].map((each): DecodingState => ({ model: each, enter() {} }));
  const { tokenMs, ratios, rounds } = await decodingLatency(states, task.prompt, task.tokenCount, task);
  const [baseMs = Number.NaN, methodMs = Number.NaN] = tokenMs;
  return { baseMs, methodMs, ratio: ratios[1] ?? Number.NaN, mergedMs: null, mergedRatio: null, whyNotMerged: "it has no adapter", rounds };
}

/** Why an adapter cannot be merged, or null after it was, and was taken out again. */
function mergeProblem(adapter: Adapter): string | null {
  try {
    merge(adapter);
    unmerge(adapter);
    return null;
  } catch (error) {
    if (error instanceof AdapterError) return error.message;
    throw error;
  }
}

/** What a method trains and keeps state for. */
export function reportOf(model: CausalLM, adapter: Adapter | null): ParameterReport {
  return parameterReport(model, adapter ?? "full");
}
