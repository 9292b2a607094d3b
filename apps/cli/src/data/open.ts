import {
  type DataSet,
  type Examples,
  type LengthLimits,
  type LoadedModel,
  mixDataSets,
  type ReadDataSet,
  type ReadOptions,
  readExamples,
  type Tokenizer,
} from "@lowrank/models";
import type { Output } from "../output.js";
import { contextOf } from "../runs.js";
import { grouped } from "../terminal/format.js";
import { columnsOf } from "./columns.js";
import type { DataValues } from "./flags.js";
import { type DataPath, dataPaths } from "./paths.js";
import { kindsOf } from "./preview.js";
import { withSource } from "./source.js";

/** Milliseconds between two drawings of how far a file is read. */
const drawnMs = 500;

/** How the rows of a command's files are read. */
export type Reading = Omit<ReadOptions, "context" | "vocabSize" | "rowLimit" | "signal" | "onRows">;

/** What opens data beside its files. */
export interface OpenOptions {
  readonly reading?: Reading;
  readonly rowLimit?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What the flags say of how rows are read. Throws UsageError where columns are named that no row has. */
export function readingOf(values: Omit<DataValues, "data">): Reading {
  const maxLength = values["max-length"];
  return {
    ...columnsOf(values),
    ...(maxLength === undefined ? {} : { maxLength }),
    isSplit: values["long-texts"] === "split",
    trainOn: values["train-on"],
  };
}

/** What of that a run's settings hold; flags that are as ever are left out, so that runs of before they were there can be resumed. */
export function dataSettings(values: DataValues): Readonly<Record<string, string>> {
  const { data, map, format } = values;
  const trainOn = values["train-on"];
  const longTexts = values["long-texts"];
  return {
    data: data.join(", "),
    ...(map && { map: map.join(",") }),
    ...(format === undefined ? {} : { format }),
    ...(trainOn === "all-turns" ? {} : { "train-on": trainOn }),
    ...(longTexts === "cut" ? {} : { "long-texts": longTexts }),
  };
}

type Loaded = Pick<LoadedModel, "model" | "config"> & { readonly tokenizer: Tokenizer };

/** The limits that a model sets to rows. */
export function limitsOf({ model, config }: Pick<LoadedModel, "model" | "config">): Pick<LengthLimits, "context" | "vocabSize"> {
  return { context: contextOf(model), vocabSize: config.vocab_size };
}

/**
 * Reads data files and turns them into examples; says how many rows and what was cut. Rejects with the signal's reason, after a line that
 * says so, when it is told to stop.
 */
export async function openData(
  names: readonly string[],
  loaded: Loaded,
  output: Output | null,
  options: OpenOptions = {},
): Promise<DataSet<Examples> & { readonly keys: readonly string[] }> {
  const files = await dataPaths(names, { output, signal: options.signal });
  const rowLimit = options.rowLimit === undefined ? undefined : Math.ceil(options.rowLimit / files.length);
  const parts: { readonly data: ReadDataSet; readonly weight: number }[] = [];
  for (const file of files) parts.push({ data: await openFile(file, loaded, output, { ...options, rowLimit }), weight: file.weight });
  if (loaded.tokenizer.eosTokenId === null)
    output?.note("warning: the tokenizer names no end token, so that no row has one and the model does not learn where to stop");
  const keys = files.every(({ weight }) => weight === 1) ? parts.flatMap(({ data }) => data.keys) : [];
  return { ...mixDataSets(parts), keys };
}

async function openFile(
  { path, weight }: DataPath,
  loaded: Loaded,
  output: Output | null,
  { reading = {}, rowLimit, signal }: OpenOptions,
): Promise<ReadDataSet> {
  let drawnAt = performance.now();
  const read = withSource(path, (source) =>
    readExamples(source, path, loaded.tokenizer, {
      ...limitsOf(loaded),
      ...reading,
      ...(rowLimit === undefined ? {} : { rowLimit }),
      ...(signal && { signal }),
      onRows(rows) {
        if (performance.now() - drawnAt < drawnMs) return;
        drawnAt = performance.now();
        output?.draw(`${path}: ${grouped(rows)} rows read …`);
      },
    }),
  );
  const data = await read.catch((error: unknown) => {
    if (signal?.aborted && error === signal.reason) output?.note(`Stopped while ${path} was read; what was there before is as it was.`);
    throw error;
  });
  for (const line of readLines(data, weight, reading)) output?.note(line);
  return data;
}

/** What is said of a file that was read. */
function readLines(data: ReadDataSet, weight: number, { maxLength }: Reading): string[] {
  const { path, rowCount, unreadFields, truncatedCount, tokenCount, learnedTokenCount, notes } = data;
  const count = data.examples.length - notes.splitCount;
  const plural = (n: number, one: string, many: string): string => `${grouped(n)} ${n === 1 ? one : many}`;
  const share = count < rowCount && notes.splitCount === 0 ? ` (${grouped(count)} of ${grouped(rowCount)}, evenly spread)` : "";
  const cut = truncatedCount > 0 ? `; ${grouped(truncatedCount)} cut to ${maxLength} tokens, without an end token` : "";
  const unused = [...unreadFields, ...notes.unusedFields];
  return [
    `${path}: ${plural(notes.splitCount > 0 ? rowCount : count, "row", "rows")}${share}, ${grouped(tokenCount)} tokens, ${grouped(learnedTokenCount)} of them in the loss${cut}`,
    `  read as ${kindsOf(data)}${weight === 1 ? "" : `, each row ${weight} times an epoch`}`,
    ...(notes.splitCount > 0
      ? [`  ${plural(notes.splitCount, "long text", "long texts")} split into ${grouped(data.examples.length)} examples`]
      : []),
    ...(notes.splitBorderCount > 0
      ? [
          `  ${plural(notes.splitBorderCount, "row has", "rows have")} the border between prompt and completion inside a token, which is in the loss`,
        ]
      : []),
    ...(notes.extendedTurnCount > 0
      ? [
          `  the chat template marks ${plural(notes.extendedTurnCount, "turn", "turns")} without the end token, which is in the loss all the same`,
        ]
      : []),
    ...(notes.emptyTurnCount > 0
      ? [
          `  ${plural(notes.emptyTurnCount, "turn that is learned says nothing", "turns that are learned say nothing")}, which teaches to end at once`,
        ]
      : []),
    ...(unused.length > 0 ? [`  not used: ${unused.map((name) => `"${name}"`).join(", ")}`] : []),
  ];
}
