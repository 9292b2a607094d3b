import { join } from "node:path";
import { longestLength, type RunState, stateFileName } from "@lowrank/models";
import { writeFileAtomic } from "@lowrank/tensor";
import { z } from "zod";
import { contentsOf } from "../changes.js";
import { type CommandContext, defineCommand } from "../command.js";
import { comparedFlags } from "../compare/flags.js";
import { finished, openFolder, removeState } from "../compare/folder.js";
import { type Opened, onFreshModel, rowsOf } from "../compare/fresh.js";
import { lossOn, reportOf } from "../compare/measure.js";
import { measured, settingsSchema } from "../compare/results.js";
import { figure } from "../compare/rows.js";
import { trainInFolder } from "../compare/training.js";
import { dataFlags } from "../data/flags.js";
import { dataSettings } from "../data/open.js";
import { defaultLearningRate } from "../defaults.js";
import { UsageError } from "../failure.js";
import type { Flags, Values } from "../flags.js";
import { baseOf, revisionFlag } from "../hub.js";
import { interruptedCode } from "../interruption.js";
import { applyMethod } from "../method.js";
import { inputsOf } from "../out/inputs.js";
import { adapterRunFiles } from "../out/mark.js";
import { type OutFolder, withOutFolder } from "../out-folder.js";
import { program } from "../program.js";
import { shownPath } from "../report/path.js";
import { deviceFlag, jsonFlag, modelFlag } from "../session.js";
import { analysed, type StudyRun } from "../study/analysis.js";
import { lossRows, type Study, studyPage } from "../study/page.js";
import { trainedPairs } from "../study/pairs.js";
import { recommended } from "../study/recommend.js";
import { effectiveRank, learnedChange } from "../study/subspace.js";
import { type TargetSet, targetSets } from "../study/targets.js";
import { grouped, tableLines } from "../terminal/format.js";
import { shellWord } from "../terminal/shell-word.js";

const flags = {
  model: modelFlag,
  revision: revisionFlag,
  ...dataFlags,
  "eval-data": comparedFlags["eval-data"],
  ranks: { type: "list", value: "1,2,4,8,16,64", help: "ranks to train (default 1,2,4,8,16,64)" },
  "targets-sets": {
    type: "text",
    value: "SETS",
    help: "sets of layers, with ; between them; q, k, v, o are the model's projections",
    default: "q,v;q,k,v,o;all-linear",
  },
  steps: { type: "integer", min: 1, help: "optimizer steps of each run", default: 200 },
  "batch-size": comparedFlags["batch-size"],
  lr: { type: "number", above: 0, help: "peak learning rate (default: by width of the model)" },
  warmup: comparedFlags.warmup,
  "eval-rows": comparedFlags["eval-rows"],
  seed: { type: "integer", min: 0, help: "order of rows and initialization; one more run has the next seed", default: 0 },
  "save-every": comparedFlags["save-every"],
  device: deviceFlag,
  out: comparedFlags.out,
  json: jsonFlag,
} as const satisfies Flags;

const baseSchema = z.object({ settings: settingsSchema, evalLoss: measured });
const runSchema: z.ZodType<StudyRun> = z.object({
  settings: settingsSchema,
  set: z.string(),
  rank: z.number(),
  seed: z.number(),
  folder: z.string(),
  trainable: z.number(),
  evalLoss: measured,
  effectiveRank: measured,
  layers: z.array(z.object({ name: z.string(), singularValues: z.array(measured), norm: measured, amplification: measured })),
});

/** A run to be made. */
interface Plan {
  readonly set: TargetSet;
  readonly rank: number;
  readonly seed: number;
}

function ranksOf(given: readonly string[] | undefined): number[] {
  const ranks = (given ?? ["1", "2", "4", "8", "16", "64"]).map((text) => {
    const rank = Number(text);
    if (!Number.isSafeInteger(rank) || rank < 1) throw new UsageError(`--ranks holds "${text}". Ranks are whole numbers of at least 1.`);
    return rank;
  });
  return [...new Set(ranks)].sort((a, b) => a - b);
}

function settingsOf(values: Values<typeof flags>): RunState["settings"] {
  const plain = ["model", "steps", "batch-size", "warmup", "eval-rows", "seed"] as const;
  return {
    ...Object.fromEntries(plain.map((name) => [name, values[name]])),
    ...dataSettings(values),
    "eval-data": values["eval-data"]?.join(", ") ?? null,
    "max-length": values["max-length"] ?? null,
  };
}

type StudyContext = CommandContext<typeof flags>;

async function runStudy(context: StudyContext): Promise<number> {
  const { values } = context;
  const claim = { command: "rank-study", path: values.out, inputs: inputsOf(flags, values), writes: [], mode: "own" } as const;
  return withOutFolder(context, claim, (folder) => studyIn(folder, context));
}

/** What is the same for all runs, found out once. */
interface Start {
  readonly shared: RunState["settings"];
  readonly sets: readonly TargetSet[];
  readonly baseLoss: number;
  readonly description: string;
  readonly lr: number;
}

/** Tokens of the longest row, as far as the context goes. */
function lengthOf({ model }: Opened, { data, heldOut }: Awaited<ReturnType<typeof rowsOf>>): number {
  return Math.min(model.contextLength, Math.max(2, longestLength(data.examples), longestLength(heldOut.examples)));
}

/** Opens the folder and measures the base. */
async function begin(outFolder: OutFolder, { values, output }: StudyContext, loaded: Opened, description: string): Promise<Start> {
  const { path: out, signal } = outFolder;
  const sets = targetSets(values["targets-sets"], loaded.model);
  const rows = await rowsOf(values, loaded, { output, signal });
  const hashes = contentsOf(loaded, rows.data, rows.heldOut);
  const shared = await openFolder(outFolder, { settings: settingsOf(values), hashes }, output);
  output.note(`device: ${description}`);
  const base = await finished({ path: join(out, "base.json"), schema: baseSchema, settings: shared, signal }, async () => ({
    settings: shared,
    evalLoss: await lossOn(loaded.model, rows.heldOut.examples, lengthOf(loaded, rows), () => signal.throwIfAborted()),
  }));
  const lr = values.lr ?? defaultLearningRate("lora", loaded.model);
  return { shared, sets, baseLoss: base?.evalLoss ?? Number.NaN, description, lr };
}

/** A run's result: trained and looked at, or read where that was done before; null where the signal came meanwhile. */
async function runResult(
  outFolder: OutFolder,
  { values, output }: StudyContext,
  { shared, lr }: Start,
  { set, rank, seed }: Plan,
  title: string,
): Promise<StudyRun | null> {
  const { path: out, files, signal } = outFolder;
  const name = `${set.name.replace(/[^\w-]+/g, "_")}-r${rank}-s${seed}`;
  const folder = join(out, name);
  const targets = typeof set.targets === "string" ? set.targets : set.targets.join();
  const settings = { ...shared, lr, seed, targets, rank, alpha: 2 * rank };
  const train = async (loaded: Opened): Promise<StudyRun | null> => {
    const { model } = loaded;
    const rows = await rowsOf(values, loaded, null);
    const lengthLimit = lengthOf(loaded, rows);
    const options = { rank, alpha: 2 * rank, targets: set.targets };
    // A rank above a layer's own costs more and learns no more; a study may well ask for it, and its page shows it.
    const adapter = applyMethod(model, "lora", options, { seed, ...baseOf(values), onWarning: () => {} });
    const trained = await trainInFolder({
      model,
      adapter,
      examples: rows.data.examples,
      lengthLimit,
      steps: values.steps,
      batchSize: values["batch-size"],
      seed,
      peakRate: lr,
      warmup: values.warmup,
      folder,
      files,
      saveEvery: values["save-every"],
      settings,
      signal,
      output,
    });
    if (!trained) return null;
    const layers: StudyRun["layers"][number][] = [];
    for await (const pair of trainedPairs(model, adapter, options.alpha / rank)) layers.push({ name: pair.name, ...learnedChange(pair) });
    const widths = layers.map(({ singularValues }) => effectiveRank(singularValues));
    return {
      settings,
      set: set.name,
      rank,
      seed,
      folder,
      trainable: reportOf(model, adapter).trainable,
      evalLoss: await lossOn(model, rows.heldOut.examples, lengthLimit, () => signal.throwIfAborted()),
      effectiveRank: widths.reduce((sum, width) => sum + width, 0) / widths.length,
      layers,
    };
  };
  const run = await finished({ path: join(out, `${name}.json`), schema: runSchema, settings, signal }, async () => {
    await outFolder.beginRun(name, adapterRunFiles);
    output.say(title);
    return onFreshModel(values, {}, train);
  });
  if (!run) return null;
  await removeState(folder, stateFileName);
  return { ...run, folder };
}

async function studyIn(outFolder: OutFolder, context: StudyContext): Promise<number> {
  const { values, output, args } = context;
  const ranks = ranksOf(values.ranks);
  const largest = ranks.at(-1) as number; // there is at least one
  if (values.warmup >= values.steps)
    throw new UsageError(`--warmup ${values.warmup} leaves nothing of ${values.steps} steps. Warm up for fewer.`);
  const start = await onFreshModel(values, {}, (loaded, description) => begin(outFolder, context, loaded, description), {
    output,
    signal: outFolder.signal,
  });
  const { sets, baseLoss, lr } = start;
  const [first] = sets as [TargetSet]; // `targetSets` gives at least one
  const plans: Plan[] = [
    ...sets.flatMap((set) => ranks.map((rank): Plan => ({ set, rank, seed: values.seed }))),
    { set: first, rank: largest, seed: values.seed + 1 },
  ];
  const runs: StudyRun[] = [];
  for (const [i, plan] of plans.entries()) {
    if (outFolder.signal.aborted) break;
    const title = `${i + 1} of ${plans.length}: rank ${plan.rank} on ${plan.set.name}${plan.seed === values.seed ? "" : ", another seed"}`;
    const run = await runResult(outFolder, context, start, plan, title);
    if (!run) break;
    runs.push(run);
  }
  if (runs.length < plans.length) {
    output.note(
      `Stopped after ${runs.length} of ${plans.length} runs. Resume with:`,
      `${program()} ${["rank-study", ...args].map(shellWord).join(" ")}`,
    );
    return interruptedCode(outFolder.signal);
  }
  const facts = [
    ["model", shownPath(values.model)],
    ["data", values.data.map((path) => shownPath(path)).join(", ")],
    ["steps", `${grouped(values.steps)} of ${values["batch-size"]} rows`],
    ["learning rate", String(lr)],
    ["device", start.description],
  ] as const;
  const study = await analysed(runs, { sets, ranks, baseLoss, seed: values.seed, facts });
  await sayResults(join(outFolder.path, "rank-study.html"), study, runs, output);
  return 0;
}

/** Writes the page and says what came out. */
async function sayResults(path: string, study: Study, runs: readonly StudyRun[], output: StudyContext["output"]): Promise<void> {
  const { baseLoss, ranks } = study;
  await writeFileAtomic(path, studyPage(study));
  const { head, rows } = lossRows(study);
  for (const line of tableLines([head, ...rows], { areNumbers: true, width: output.tableColumns })) output.say(line);
  output.say(`held-out loss; before training ${baseLoss.toFixed(4)}`);
  output.say();
  const kinds = [...new Set(study.amplification.map(({ layers }) => layers))];
  const factor = (kind: string, rank: number): string =>
    figure(study.amplification.find((each) => each.layers === kind && each.rank === rank)?.factor ?? Number.NaN);
  for (const line of tableLines(
    [["amplified", ...ranks.map((rank) => `r = ${rank}`)], ...kinds.map((kind) => [kind, ...ranks.map((rank) => factor(kind, rank))])],
    { areNumbers: true, width: output.tableColumns },
  ))
    output.say(line);
  output.say();
  output.say(study.sentence);
  output.say(`page: ${path}`);
  const { spectra, betweenRanks, betweenSeeds, amplification, sentence } = study;
  const plain = runs.map(({ set, rank, seed, evalLoss, trainable, effectiveRank: width }) => ({
    set,
    rank,
    seed,
    evalLoss,
    trainable,
    effectiveRank: width,
  }));
  output.result({
    baseLoss,
    runs: plain,
    recommended: recommended(study.runs, baseLoss),
    sentence,
    spectra,
    subspaces: { betweenRanks, betweenSeeds },
    amplification,
    page: path,
  });
}

export const rankStudyCommand = defineCommand({
  name: "rank-study",
  makes: "run",
  summary: "Which rank and which layers does the data need? Trains LoRA at several, and looks at what was learned.",
  flags,
  examples: [
    "lowrank rank-study --model ./model --data train.jsonl --eval-data test.jsonl --steps 300 --out study",
    "lowrank rank-study --model ./model --data train.jsonl --ranks 1,4,16 --targets-sets 'q,v;all-linear' --out study",
  ],
  run: runStudy,
});
