import { join } from "node:path";
import type { Adapter } from "@lowrank/lora";
import type { DataSet, Example, Examples, RunState } from "@lowrank/models";
import type { CommandContext } from "../command.js";
import { baseOf } from "../hub.js";
import { applyMethod, fullMethod, methodOf, optionSettings } from "../method.js";
import { adapterRunFiles, fullRunFiles } from "../out/mark.js";
import type { OutFolder } from "../out-folder.js";
import { contextOf, initializeAdapter } from "../runs.js";
import { openModel } from "../session.js";
import { riseNote, startNote } from "../training-notes.js";
import type { compareFlags } from "./flags.js";
import { finished } from "./folder.js";
import { type Opened, onFreshModel, rowsOf } from "./fresh.js";
import { generalText } from "./general-text.js";
import {
  adapterDecoding,
  type DecodingResult,
  type DecodingTask,
  fullDecoding,
  type MethodResult,
  promptOf,
  type Quality,
  qualityOf,
  reportOf,
} from "./measure.js";
import { methodSchema } from "./results.js";
import { stagesOf } from "./stage.js";
import { medianStepMs, type Trained, trainInFolder } from "./training.js";
import type { Placed } from "./variants.js";

export type CompareContext = CommandContext<typeof compareFlags>;

/** Tokens that are decoded at a time, when decoding is timed. */
export const decodedTokens = 24;

/** What is the same for all methods, found out once; each method's rate, options and whether it fits. */
export interface Start extends Placed {
  readonly settings: RunState["settings"];
  readonly base: Quality & { readonly settings: RunState["settings"] };
  /** Positions that a row may take beside any of the methods. */
  readonly context: number;
  readonly description: string;
  readonly generalSource: string;
  readonly rates: ReadonlyMap<string, number>;
}

/** What to say of a method that ended above the base, or above where it began. */
function methodRise(name: string, base: Quality, { evalLoss }: Quality, { trainLoss, steps }: Trained, rate: number): string | null {
  const first = steps[0]?.step === 1 ? steps[0].loss : null;
  if (evalLoss <= base.evalLoss) return null;
  // A method need not begin at the base's loss: one that was still falling lacks steps.
  if (first !== null && trainLoss < first)
    return `${name} ended above the base (held-out loss ${base.evalLoss.toFixed(4)} → ${evalLoss.toFixed(4)}), though its training loss fell (${first.toFixed(4)} → ${trainLoss.toFixed(4)}). Give it more --steps.`;
  const note = riseNote({ heldOut: { before: base.evalLoss, after: evalLoss }, training: null }, { flag: `--lr ${name}=`, rate });
  return note && `${name}: ${note}`;
}

/** A method's result: trained and measured, or read where that was done before; null where the signal came meanwhile. */
export function methodResult(
  outFolder: OutFolder,
  { values, output }: CompareContext,
  start: Start,
  name: string,
  title: string,
): Promise<MethodResult | null> {
  const { path: out, files, signal } = outFolder;
  const isFull = methodOf(name) === fullMethod;
  const own = start.options.get(name) ?? {};
  const peakRate = start.rates.get(name) as number; // every method's is set when the model is opened
  const settings = { ...start.settings, method: name, lr: peakRate, ...optionSettings(own) };
  return finished({ path: join(out, `${name}.json`), schema: methodSchema, settings, signal }, async () => {
    const folder = await outFolder.beginRun(name, isFull ? fullRunFiles : adapterRunFiles);
    output.say(`${title}, learning rate ${peakRate}`);
    const beginning = startNote(methodOf(name), own, `--set ${name}.init=`);
    if (beginning !== null) output.note(beginning);
    return onFreshModel(values, isFull ? { dtype: "f32" } : {}, async (loaded) => {
      const { model } = loaded;
      const { data, heldOut } = await rowsOf(values, loaded, null);
      const onWarning = (message: string): void => output.note(`warning: ${message}`);
      const adapter = isFull ? null : applyMethod(model, name, own, { seed: values.seed, ...baseOf(values), onWarning });
      const batches = { batchSize: values["batch-size"], seed: values.seed, lengthLimit: start.context };
      if (adapter) await initializeAdapter(adapter, model, data.examples, batches, output);
      const trained = await trainInFolder({
        model,
        adapter,
        examples: data.examples,
        ...batches,
        steps: values.steps,
        peakRate,
        warmup: values.warmup,
        folder,
        files,
        saveEvery: values["save-every"],
        settings,
        signal,
        output,
      });
      if (!trained || signal.aborted) return null;
      const sample = heldOut.examples.at(0) ?? (data.examples.at(0) as Example); // a data set is never empty
      const measured = await measureMethod(loaded, adapter, { values, output, start, signal, name, heldOut, sample });
      if (!measured) return null;
      const note = methodRise(name, start.base, measured, trained, peakRate);
      if (note !== null) output.note(`warning: ${note}`);
      return {
        method: name,
        settings,
        parameters: reportOf(model, adapter),
        peakBytes: trained.peakBytes,
        stepMs: medianStepMs(trained.steps),
        trainLoss: trained.trainLoss,
        contextTokens: model.virtualTokens.length,
        ...measured,
      } satisfies MethodResult;
    });
  });
}

/** Loss, answers, forgetting and the time of decoding of a trained model; null where the signal came meanwhile. */
async function measureMethod(
  loaded: Opened,
  adapter: Adapter | null,
  {
    values,
    output,
    start,
    signal,
    name,
    heldOut,
    sample,
  }: Pick<CompareContext, "values" | "output"> & {
    readonly start: Start;
    readonly signal: AbortSignal;
    readonly name: string;
    readonly heldOut: DataSet<Examples>;
    /** Whose prompt decoding is timed with. */
    readonly sample: Example;
  },
): Promise<(Quality & { readonly decoding: DecodingResult }) | null> {
  const { model, tokenizer } = loaded;
  const stage = stagesOf(output, name);
  const general = await generalText(values["general-text"], tokenizer, contextOf(model));
  const quality = await qualityOf(loaded, heldOut, general.examples, start.context, signal, stage);
  const prompt = promptOf(sample);
  const seconds = values["latency-seconds"];
  const task: DecodingTask = { prompt, tokenCount: Math.min(decodedTokens, contextOf(model) - prompt.length), seconds, signal };
  stage(`time of a decoded token, for about ${seconds} s`);
  const besideBase = async (): Promise<DecodingResult> => {
    using base = (await openModel(values.model, model.device, { dtype: "f32", revision: values.revision })).model;
    return await fullDecoding(model, base, task);
  };
  const decoding = await (adapter ? adapterDecoding(model, adapter, task) : besideBase());
  output.draw("");
  return signal.aborted ? null : { ...quality, decoding };
}
