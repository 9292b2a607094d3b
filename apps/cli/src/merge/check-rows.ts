import { type Example, type Examples, ignoredLabel, isDataFile, type LoadedModel, readState } from "@lowrank/models";
import { nodeFiles } from "@lowrank/tensor";
import { generalText } from "../compare/general-text.js";
import { openData } from "../data/open.js";
import { describeFailure } from "../failure.js";
import type { Output } from "../output.js";
import { shownPath } from "../report/path.js";
import { resumedFlags } from "../resume.js";
import { contextOf } from "../runs.js";
import { openTemplate } from "../session.js";
import { trainFlags } from "../train/flags.js";
import { openRows } from "../train/rows.js";

/** The rows on which a model is compared with what it was made of. */
export interface CheckRows {
  readonly rows: Examples;
  readonly source: CheckSource;
}

/** What rows are, for people. */
export interface CheckSource {
  readonly text: string;
  /** The same without paths of this machine, for cards. */
  readonly published: string;
}

/** What rows are of a file or folder, or of nothing that has a path. */
function sourceOf(what: string, path?: string): CheckSource {
  return path === undefined ? { text: what, published: what } : { text: `${what} ${path}`, published: `${what} ${shownPath(path)}` };
}

/** Where they may come from. */
export interface CheckOptions {
  /** --check. */
  readonly file: string | undefined;
  /** Folders of adapters, of which one may be a run with held-out rows. */
  readonly runs: readonly string[];
  readonly output: Output;
  readonly signal: AbortSignal;
}

/** Rows that are read, tokens of the longest, and of them all: of those that somebody named, and of those that are taken where nobody did, in a few seconds. */
const [rowLimit, rowTokens] = [64, 256];
const tokenLimits = { named: 512, usual: 256 };

/**
 * Rows to compare models on: those of --check, else the held-out ones of the first adapter that is a run with such, else the prose that ships with
 * lowrank; random tokens where the model has no tokenizer. At most 64, evenly spread, and some 256 tokens in all, 512 of --check. Rejects with DataError
 * and UsageError for a --check that cannot be read.
 */
export async function checkRows(loaded: LoadedModel, { file, runs, output, signal }: CheckOptions): Promise<CheckRows> {
  const { model, config, tokenizer } = loaded;
  const limits = { row: Math.min(rowTokens, contextOf(model)), all: tokenLimits[file === undefined ? "usual" : "named"] };
  if (!tokenizer) return { rows: randomRows(model.vocabSize, limits), source: sourceOf("random tokens, as the model has no tokenizer") };
  if (file !== undefined && isDataFile(file)) {
    const { examples } = await openData([file], { model, config, tokenizer }, output, { rowLimit, signal });
    return { rows: some(examples, limits), source: sourceOf("rows of", file) };
  }
  for (const run of file === undefined ? runs : []) {
    const found = await heldOutRows({ ...loaded, tokenizer }, run, output, signal);
    if (found) return { rows: some(found, limits), source: sourceOf("held-out rows of the run in", run) };
  }
  const { examples } = await generalText(file, tokenizer, limits.row);
  return {
    rows: some(examples, limits),
    source: file === undefined ? sourceOf("passages of the prose that ships with lowrank") : sourceOf("passages of", file),
  };
}

/** The held-out rows of a run; null where the folder is no run, or a run without any, or its files are gone, which is said. */
async function heldOutRows(
  loaded: LoadedModel & { readonly tokenizer: NonNullable<LoadedModel["tokenizer"]> },
  run: string,
  output: Output,
  signal: AbortSignal,
): Promise<Examples | null> {
  try {
    if (!(await readState(nodeFiles, run))) return null;
    const context = { values: {} as never, given: new Set<string>(), args: ["--out", run] };
    const { values } = await resumedFlags("train", trainFlags, ["model", "data"], context, { out: run, resume: true });
    if (values["eval-data"] === undefined && values["eval-split"] === undefined) return null;
    await openTemplate(loaded.tokenizer, run, output, signal);
    return (await openRows(values, loaded, output, signal)).heldOut?.examples ?? null;
  } catch (error) {
    signal.throwIfAborted();
    const { text, exitCode } = describeFailure(error, false);
    if (exitCode !== 2) throw error;
    output.note(`warning: the held-out rows of the run in ${run} cannot be read (${text.replace(/^error: /, "")})`);
    return null;
  }
}

/** Of one row, and of all. */
interface TokenLimits {
  readonly row: number;
  readonly all: number;
}

/** Some of many rows, evenly spread, until they are enough tokens; each cut to its limit, with loss tokens in what is left. */
function some(rows: Examples, { row: limit, all }: TokenLimits): readonly Example[] {
  const chosen: Example[] = [];
  const step = Math.max(1, rows.length / rowLimit);
  let left = all;
  for (let at = 0; at < rows.length && (left > 0 || chosen.length === 0); at += step) {
    const row = cut(rows.at(Math.floor(at)) as Example, limit); // below the length
    if (chosen.length > 0 && row.ids.length > left) continue;
    left -= row.ids.length;
    chosen.push(row);
  }
  return chosen;
}

function cut({ line, ids, labels }: Example, limit: number): Example {
  const first = labels.findIndex((label, i) => i > 0 && label !== ignoredLabel);
  const start = first < limit ? 0 : first - Math.floor(limit / 2);
  return { line, ids: ids.slice(start, start + limit), labels: labels.slice(start, start + limit) };
}

/** The same tokens for each vocabulary: Knuth's multiplicative hashes of 1, 2, … */
function randomRows(vocabSize: number, { row: context, all }: TokenLimits): Example[] {
  const length = Math.min(all / 16, context);
  return Array.from({ length: 16 }, (_, row) => {
    const ids = Array.from({ length }, (_, i) => Math.floor(((((row * length + i + 1) * 2654435761) % 2 ** 32) / 2 ** 32) * vocabSize));
    return { line: row + 1, ids, labels: ids };
  });
}
