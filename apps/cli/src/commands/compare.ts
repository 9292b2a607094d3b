import { join } from "node:path";
import { NotApplicableError } from "@lowrank/lora";
import type { DataSet, Example, Examples, LoadedModel, RunState } from "@lowrank/models";
import { examplesDigest, longestLength, stateFileName } from "@lowrank/models";
import { largest, writeFileAtomic } from "@lowrank/tensor";
import { contentsOf } from "../changes.js";
import { type CommandContext, defineCommand } from "../command.js";
import { chosenMethods, givenRates, optionsOf, virtualTokensOf } from "../compare/choices.js";
import { comparedFlags } from "../compare/flags.js";
import { finished, openFolder, removeState } from "../compare/folder.js";
import { generalText } from "../compare/general-text.js";
import { splitRows } from "../compare/held-out.js";
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
} from "../compare/measure.js";
import { comparisonPage, conclusion } from "../compare/page.js";
import { baseSchema, methodSchema } from "../compare/results.js";
import { terminalRows } from "../compare/rows.js";
import { stagesOf } from "../compare/stage.js";
import { medianStepMs, stepsIn, type TimedStep, type Trained, trainInFolder } from "../compare/training.js";
import { defaultLearningRate } from "../defaults.js";
import { UsageError } from "../failure.js";
import type { Flags, Values } from "../flags.js";
import { interruptedCode } from "../interruption.js";
import { applyMethod, fullMethod, methodFlags, methodNames, methodOf, optionSettings } from "../method.js";
import { inputsOf } from "../out/inputs.js";
import { adapterRunFiles, fullRunFiles } from "../out/mark.js";
import { type OutFolder, withOutFolder } from "../out-folder.js";
import { program } from "../program.js";
import { shownPath } from "../report/path.js";
import { contextOf, initializeAdapter } from "../runs.js";
import { deviceFlag, jsonFlag, modelFlag, openData, openModel, withDevice } from "../session.js";
import { grouped, shellWord, tableLines } from "../terminal/format.js";
import { riseNote, startNote } from "../training-notes.js";

const flags = {
  model: modelFlag,
  data: comparedFlags.data,
  "eval-data": comparedFlags["eval-data"],
  methods: { type: "list", value: "full,lora,dora", help: `methods, of ${methodNames.join(", ")} (default: the usual ones of these)` },
  steps: { type: "integer", min: 1, help: "optimizer steps of each method", default: 200 },
  "batch-size": comparedFlags["batch-size"],
  lr: {
    type: "pairs",
    value: "method=rate",
    help: "peak learning rate of a method, as often as needed (default: each method's usual one)",
  },
  warmup: comparedFlags.warmup,
  ...methodFlags,
  "general-text": {
    type: "text",
    value: "FILE",
    path: "read",
    help: 'lines, or {"text"} rows, on which forgetting is measured (default: prose that ships with lowrank)',
  },
  "max-length": comparedFlags["max-length"],
  "eval-rows": comparedFlags["eval-rows"],
  "latency-seconds": { type: "number", above: 0, help: "at most this long for timing one method's decoding", default: 20 },
  seed: { type: "integer", min: 0, help: "order of rows, first values, dropout", default: 0 },
  "save-every": comparedFlags["save-every"],
  device: deviceFlag,
  out: comparedFlags.out,
  json: jsonFlag,
} as const satisfies Flags;

type CompareContext = CommandContext<typeof flags>;

/** What is the same for all methods, found out once. */
interface Start {
  readonly settings: RunState["settings"];
  readonly base: Quality & { readonly settings: RunState["settings"] };
  /** Positions that a row may take beside any of the methods. */
  readonly context: number;
  readonly description: string;
  readonly generalSource: string;
}

function settingsOf(values: Values<typeof flags>): RunState["settings"] {
  const plain = ["model", "data", "steps", "batch-size", "warmup", "eval-rows", "seed"] as const;
  const optional = ["eval-data", "general-text", "max-length"] as const;
  return {
    ...Object.fromEntries(plain.map((name) => [name, values[name]])),
    ...Object.fromEntries(optional.map((name) => [name, values[name] ?? null])),
  };
}

/** What lets a method train on a model that has no place for it as published, and what is said of it. */
const variants: Readonly<Record<string, { readonly options: Readonly<Record<string, unknown>>; readonly note: string }>> = {
  bitfit: {
    options: { addMissing: true },
    note: "this model has no biases, so each dense layer is given one, 0 at first (addMissing), which the paper does not do; they cannot be merged",
  },
};

/** Why a method cannot be put on the model at all; null where it can. */
function whyNot(model: LoadedModel["model"], name: string, own: Readonly<Record<string, unknown>>): string | null {
  try {
    applyMethod(model, name, own, { seed: 0, baseModel: "", onWarning: () => {} }).disable();
    return null;
  } catch (error) {
    if (error instanceof NotApplicableError) return error.message;
    throw error;
  }
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

async function runCompare(context: CompareContext): Promise<number> {
  const { values } = context;
  const claim = { command: "compare", path: values.out, inputs: inputsOf(flags, values), writes: [], mode: "own" } as const;
  return withOutFolder(context, claim, (folder) => compareIn(folder, context));
}

async function compareIn(outFolder: OutFolder, { values, given, output, args }: CompareContext): Promise<number> {
  const { path: out, files, signal } = outFolder;
  const asked = chosenMethods(values.methods);
  const rates = new Map(givenRates(asked, values.lr));
  /** Methods that this model has no place for, and why. */
  const left = new Map<string, string>();
  /** Methods that are trained in a variant, and in which. */
  const varying = new Map<string, string>();
  if (values.warmup >= values.steps)
    throw new UsageError(`--warmup ${values.warmup} leaves nothing of ${values.steps} steps. Warm up for fewer.`);
  const decodedTokens = 24;

  /** A fresh device with the model on it: the same start for each method, and a peak of memory of its own. */
  const onFreshModel = async <R>(
    dtype: { readonly dtype?: "f32" },
    use: (loaded: Awaited<ReturnType<typeof openModel>>, description: string) => Promise<R>,
  ): Promise<R> =>
    withDevice(values.device, null, async (dev) => use(await openModel(values.model, dev, dtype), `${dev.name} (${dev.description})`));
  const rowsFor = async (
    loaded: Awaited<ReturnType<typeof openModel>>,
    isLoud = false,
  ): Promise<{ data: DataSet<Examples>; heldOut: DataSet<Examples> }> => {
    const told = isLoud ? output : null;
    const maxLength = values["max-length"];
    // Later, what is finished is shown first.
    const stop = isLoud ? { signal } : {};
    const held = values["eval-data"];
    const heldOut = held === undefined ? null : await openData(held, loaded, told, { maxLength, rowLimit: values["eval-rows"], ...stop });
    return splitRows(await openData(values.data, loaded, told, { maxLength, ...stop }), heldOut, values["eval-rows"]);
  };

  const options = new Map<string, Readonly<Record<string, unknown>>>();
  const start = await onFreshModel({}, async (loaded, description): Promise<Start | null> => {
    const { model, tokenizer } = loaded;
    for (const [name, own] of optionsOf(model, asked, values, given, values.steps)) options.set(name, own);
    for (const name of asked) rates.set(name, rates.get(name) ?? defaultLearningRate(name, model));
    for (const name of asked) {
      const own = options.get(name) ?? {};
      const reason = methodOf(name) === fullMethod ? null : whyNot(model, name, own);
      if (reason === null) continue;
      const variant = variants[methodOf(name)];
      // What the user has set is not set otherwise.
      const varied = variant && { ...variant.options, ...own };
      if (variant && varied && whyNot(model, name, varied) === null) {
        options.set(name, varied);
        varying.set(name, variant.note);
      } else left.set(name, reason);
    }
    for (const [name, note] of varying) output.note(`${name} is a variant: ${note}`);
    for (const [name, reason] of left) output.note(`${name} is left out: ${reason}`);
    if (left.size === asked.length) throw new UsageError(`None of the methods has a place on this model. ${[...left.values()][0]}`);
    const taken = largest(
      [...options].map(([name, own]) => virtualTokensOf(name, own, model)),
      0,
    );
    const limit = model.contextLength - taken;
    const { data, heldOut } = await rowsFor(loaded, true);
    const longest = Math.max(longestLength(data.examples), longestLength(heldOut.examples));
    if (longest > limit)
      throw new UsageError(
        `The longest row has ${longest} tokens, and beside ${taken} virtual tokens the context of ${model.contextLength} has room for ${limit}. Cut long rows with --max-length ${limit}.`,
      );
    const general = await generalText(values["general-text"], tokenizer, limit);
    const hashes = { ...contentsOf(loaded, data, heldOut), "general-text": examplesDigest(general.examples) };
    const settings = await openFolder(outFolder, { settings: settingsOf(values), hashes }, output);
    output.note(`device: ${description}`);
    output.note(`general text: ${general.source}`);
    const lengthLimit = Math.min(limit, Math.max(longest, 2));
    const base = await finished({ path: join(out, "base.json"), schema: baseSchema, settings, signal }, async () => {
      const quality = await qualityOf(loaded, heldOut, general.examples, lengthLimit, signal, stagesOf(output, "base"));
      return signal.aborted ? null : { settings, ...quality };
    });
    output.draw("");
    return base && { settings, base, context: lengthLimit, description, generalSource: general.source };
  });

  const names = asked.filter((name) => !left.has(name));
  const results: MethodResult[] = [];
  const steps = new Map<string, readonly TimedStep[]>();
  for (const [i, name] of names.entries()) {
    if (!start || signal.aborted) break;
    const isFull = methodOf(name) === fullMethod;
    const own = options.get(name) ?? {};
    const peakRate = rates.get(name) as number; // every method's is set when the model is opened
    const settings = { ...start.settings, method: name, lr: peakRate, ...optionSettings(own) };
    const result = await finished({ path: join(out, `${name}.json`), schema: methodSchema, settings, signal }, async () => {
      const folder = await outFolder.beginRun(name, isFull ? fullRunFiles : adapterRunFiles);
      output.say(`${name} (${i + 1} of ${names.length}), learning rate ${peakRate}`);
      const beginning = startNote(methodOf(name), own, `--set ${name}.init=`);
      if (beginning !== null) output.note(beginning);
      return onFreshModel(isFull ? { dtype: "f32" } : {}, async (loaded) => {
        const { model, tokenizer } = loaded;
        const { data, heldOut } = await rowsFor(loaded);
        const onWarning = (message: string): void => output.note(`warning: ${message}`);
        const adapter = isFull ? null : applyMethod(model, name, own, { seed: values.seed, baseModel: values.model, onWarning });
        const batches = { batchSize: values["batch-size"], seed: values.seed, lengthLimit: start.context };
        if (adapter) await initializeAdapter(adapter, model, data.examples, batches, output);
        const trained = await trainInFolder({
          model,
          adapter,
          examples: data.examples,
          lengthLimit: start.context,
          steps: values.steps,
          batchSize: values["batch-size"],
          seed: values.seed,
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
        const stage = stagesOf(output, name);
        const general = await generalText(values["general-text"], tokenizer, contextOf(model));
        const quality = await qualityOf(loaded, heldOut, general.examples, start.context, signal, stage);
        const prompt = promptOf(heldOut.examples.at(0) ?? (data.examples.at(0) as Example)); // a data set is never empty
        const task: DecodingTask = {
          prompt,
          tokenCount: Math.min(decodedTokens, contextOf(model) - prompt.length),
          seconds: values["latency-seconds"],
          signal,
        };
        stage(`time of a decoded token, for about ${values["latency-seconds"]} s`);
        const besideBase = async (): Promise<DecodingResult> => {
          using base = (await openModel(values.model, model.device, { dtype: "f32" })).model;
          return await fullDecoding(model, base, task);
        };
        const decoding = await (adapter ? adapterDecoding(model, adapter, task) : besideBase());
        output.draw("");
        if (signal.aborted) return null;
        const note = methodRise(name, start.base, quality, trained, peakRate);
        if (note !== null) output.note(`warning: ${note}`);
        return {
          method: name,
          settings,
          parameters: reportOf(model, adapter),
          peakBytes: trained.peakBytes,
          stepMs: medianStepMs(trained.steps),
          trainLoss: trained.trainLoss,
          decoding,
          contextTokens: model.virtualTokens.length,
          ...quality,
        } satisfies MethodResult;
      });
    });
    if (!result) break;
    await removeState(join(out, name), stateFileName);
    results.push(result);
    steps.set(name, await stepsIn(join(out, name)));
  }
  if (!start || results.length < names.length) {
    output.note(
      `Stopped after ${results.length} of ${names.length} methods. Resume with:`,
      `${program()} ${["compare", ...args].map(shellWord).join(" ")}`,
    );
    return interruptedCode(signal);
  }

  const path = join(out, "compare.html");
  const facts: [string, string][] = [
    ["model", shownPath(values.model)],
    ["data", shownPath(values.data)],
    ["steps", `${grouped(values.steps)} of ${values["batch-size"]} rows`],
    ["learning rates", names.map((name) => `${name} ${rates.get(name)}`).join(", ")],
    ["device", start.description],
    ...[...varying].map(([name, note]): [string, string] => [`${name}: a variant`, note]),
    ...[...left].map(([name, reason]): [string, string] => [`${name}: left out`, reason]),
  ];
  const general = start.generalSource;
  await writeFileAtomic(
    path,
    comparisonPage({ base: start.base, results, steps, facts, generalText: general, stepCount: values.steps, decodedTokens }),
  );
  for (const line of tableLines(terminalRows(start.base, results), { areNumbers: true, width: output.tableColumns })) output.say(line);
  output.say();
  output.say(conclusion(start.base, results));
  output.say(`forgetting: rise of the loss on ${general}`);
  for (const [name, note] of varying) output.say(`${name} is a variant: ${note}`);
  for (const [name, reason] of left) output.say(`${name} is left out: ${reason}`);
  output.say(`page: ${path}`);
  output.result({
    base: start.base,
    methods: results,
    variants: Object.fromEntries(varying),
    leftOut: Object.fromEntries(left),
    generalText: general,
    page: path,
  });
  return 0;
}

export const compareCommand = defineCommand({
  name: "compare",
  makes: "run",
  summary: "Train several methods on the same batches and measure what each costs and gives: a table and a page with plots.",
  flags,
  examples: [
    "lowrank compare --model ./model --data train.jsonl --eval-data test.jsonl --methods full,lora,dora --steps 300 --out comparison",
    "lowrank compare --model ./model --data train.jsonl --methods lora,dora --rank 4 --lr lora=2e-3 --set dora.alpha=8 --out comparison",
  ],
  run: runCompare,
});
