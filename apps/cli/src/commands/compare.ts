import { join } from "node:path";
import type { RunState } from "@lowrank/models";
import { examplesDigest, longestLength, stateFileName } from "@lowrank/models";
import { largest, writeFileAtomic } from "@lowrank/tensor";
import { contentsOf } from "../changes.js";
import { defineCommand } from "../command.js";
import { chosenMethods, givenRates, optionsOf, virtualTokensOf } from "../compare/choices.js";
import { compareFlags } from "../compare/flags.js";
import { finished, openFolder, removeState } from "../compare/folder.js";
import { type Opened, onFreshModel, rowsOf } from "../compare/fresh.js";
import { generalText } from "../compare/general-text.js";
import { type MethodResult, qualityOf } from "../compare/measure.js";
import { type CompareContext, decodedTokens, methodResult, type Start } from "../compare/method.js";
import { comparisonPage, conclusion } from "../compare/page.js";
import { baseSchema } from "../compare/results.js";
import { terminalRows } from "../compare/rows.js";
import { stagesOf } from "../compare/stage.js";
import { stepsIn, type TimedStep } from "../compare/training.js";
import { type Placed, placed } from "../compare/variants.js";
import { dataSettings } from "../data/open.js";
import { defaultLearningRate } from "../defaults.js";
import { UsageError } from "../failure.js";
import type { Values } from "../flags.js";
import { interruptedCode } from "../interruption.js";
import { inputsOf } from "../out/inputs.js";
import { type OutFolder, withOutFolder } from "../out-folder.js";
import { program } from "../program.js";
import { shownPath } from "../report/path.js";
import { grouped, tableLines } from "../terminal/format.js";
import { shellWord } from "../terminal/shell-word.js";

function settingsOf(values: Values<typeof compareFlags>): RunState["settings"] {
  const plain = ["model", "steps", "batch-size", "warmup", "eval-rows", "seed"] as const;
  const optional = ["general-text", "max-length"] as const;
  return {
    ...Object.fromEntries(plain.map((name) => [name, values[name]])),
    ...Object.fromEntries(optional.map((name) => [name, values[name] ?? null])),
    ...(values.quantize === undefined || values.quantize === "none" ? {} : { quantize: values.quantize }),
    ...dataSettings(values),
    "eval-data": values["eval-data"]?.join(", ") ?? null,
  };
}

async function runCompare(context: CompareContext): Promise<number> {
  const { values } = context;
  const claim = { command: "compare", path: values.out, inputs: inputsOf(compareFlags, values), writes: [], mode: "own" } as const;
  return withOutFolder(context, claim, (folder) => compareIn(folder, context));
}

async function compareIn(folder: OutFolder, context: CompareContext): Promise<number> {
  const { values, output, args } = context;
  const asked = chosenMethods(values.methods);
  const rates = givenRates(asked, values.lr);
  if (values.warmup >= values.steps)
    throw new UsageError(`--warmup ${values.warmup} leaves nothing of ${values.steps} steps. Warm up for fewer.`);
  const { start, left } = await onFreshModel(
    values,
    {},
    (loaded, description) => begin(folder, context, { asked, rates }, loaded, description),
    { output, signal: folder.signal },
  );

  const names = asked.filter((name) => !left.has(name));
  const results: MethodResult[] = [];
  const steps = new Map<string, readonly TimedStep[]>();
  for (const [i, name] of names.entries()) {
    if (!start || folder.signal.aborted) break;
    const result = await methodResult(folder, context, start, name, `${name} (${i + 1} of ${names.length})`);
    if (!result) break;
    await removeState(join(folder.path, name), stateFileName);
    results.push(result);
    steps.set(name, await stepsIn(join(folder.path, name)));
  }
  if (!start || results.length < names.length) {
    output.note(
      `Stopped after ${results.length} of ${names.length} methods. Resume with:`,
      `${program()} ${["compare", ...args].map(shellWord).join(" ")}`,
    );
    return interruptedCode(folder.signal);
  }
  await sayResults(folder, context, start, results, steps);
  return 0;
}

/** Opens the folder and measures the base; without a start where the signal came meanwhile. */
async function begin(
  outFolder: OutFolder,
  { values, given, output }: CompareContext,
  { asked, rates }: { readonly asked: readonly string[]; readonly rates: ReadonlyMap<string, number> },
  loaded: Opened,
  description: string,
): Promise<{ readonly start: Start | null; readonly left: Placed["left"] }> {
  const { signal, path: out } = outFolder;
  const { model, tokenizer } = loaded;
  const { options, varying, left } = placed(model, new Map(optionsOf(model, asked, values, given, values.steps)));
  for (const [name, note] of varying) output.note(`${name} is a variant: ${note}`);
  for (const [name, reason] of left) output.note(`${name} is left out: ${reason}`);
  if (left.size === asked.length) throw new UsageError(`None of the methods has a place on this model. ${[...left.values()][0]}`);
  const taken = largest(
    [...options].filter(([name]) => !left.has(name)).map(([name, own]) => virtualTokensOf(name, own, model)),
    0,
  );
  const limit = model.contextLength - taken;
  const { data, heldOut } = await rowsOf(values, loaded, { output, signal });
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
  const allRates = new Map(asked.map((name) => [name, rates.get(name) ?? defaultLearningRate(name, model)]));
  const found = { context: lengthLimit, description, generalSource: general.source, rates: allRates, options, varying, left };
  return { start: base && { settings, base, ...found }, left };
}

/** Writes the page and says what came out. */
async function sayResults(
  { path: out }: OutFolder,
  { values, output }: CompareContext,
  { base, rates, varying, left, description, generalSource: general }: Start,
  results: readonly MethodResult[],
  steps: ReadonlyMap<string, readonly TimedStep[]>,
): Promise<void> {
  const path = join(out, "compare.html");
  const facts: [string, string][] = [
    ["model", shownPath(values.model)],
    ["data", values.data.map((path) => shownPath(path)).join(", ")],
    ["steps", `${grouped(values.steps)} of ${values["batch-size"]} rows`],
    ["learning rates", results.map(({ method }) => `${method} ${rates.get(method)}`).join(", ")],
    ["device", description],
    ...[...varying].map(([name, note]): [string, string] => [`${name}: a variant`, note]),
    ...[...left].map(([name, reason]): [string, string] => [`${name}: left out`, reason]),
  ];
  await writeFileAtomic(
    path,
    comparisonPage({ base, results, steps, facts, generalText: general, stepCount: values.steps, decodedTokens }),
  );
  for (const line of tableLines(terminalRows(base, results), { areNumbers: true, width: output.tableColumns })) output.say(line);
  output.say();
  output.say(conclusion(base, results));
  output.say(`forgetting: rise of the loss on ${general}`);
  for (const [name, note] of varying) output.say(`${name} is a variant: ${note}`);
  for (const [name, reason] of left) output.say(`${name} is left out: ${reason}`);
  output.say(`page: ${path}`);
  output.result({
    base,
    methods: results,
    variants: Object.fromEntries(varying),
    leftOut: Object.fromEntries(left),
    generalText: general,
    page: path,
  });
}

export const compareCommand = defineCommand({
  name: "compare",
  makes: "run",
  summary: "Train several methods on the same batches and measure what each costs and gives: a table and a page with plots.",
  flags: compareFlags,
  examples: [
    "lowrank compare --model ./model --data train.jsonl --eval-data test.jsonl --methods full,lora,dora --steps 300 --out comparison",
    "lowrank compare --model ./model --data train.jsonl --methods lora,dora --rank 4 --lr lora=2e-3 --set dora.alpha=8 --out comparison",
  ],
  run: runCompare,
});
