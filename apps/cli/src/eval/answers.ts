import { type DataSet, type Example, type Examples, ignoredLabel, type LoadedModel, TextGenerator, type Tokenizer } from "@lowrank/models";
import { largest } from "@lowrank/tensor";
import { UsageError } from "../failure.js";
import type { Output } from "../output.js";
import { partingLines } from "../parting.js";
import { contextOf } from "../runs.js";
import { grouped, oneLine } from "../terminal/format.js";
import { printable } from "../terminal/printable.js";

/** One row's answer beside what it should be, both without white space at the ends. */
export interface Answer {
  readonly line: number;
  readonly prompt: string;
  readonly expected: string;
  readonly answer: string;
}

/** Wrong answers that are shown. */
const shownCount = 5;

/** The first wrong answers below what was expected, each cut to `columns` around the place where it parts from that, which is marked. */
export function failedLines(answers: readonly Answer[], columns: number): string[] {
  const failed = answers.filter(({ expected, answer }) => answer !== expected);
  if (failed.length === 0) return [];
  const label = "expected  ";
  const width = Math.max(10, columns - label.length - 1);
  const rows = failed.slice(0, shownCount).flatMap(({ line, prompt, expected, answer }) => {
    const { a, b, at } = partingLines(printable(expected), printable(answer), width);
    const [asked, said] = [`line ${line}`.padEnd(label.length), "answer".padEnd(label.length)];
    return ["", `${asked}${oneLine(printable(prompt), width)}`, `${label}${a}`, `${said}${b}`, `${" ".repeat(label.length + at)}^`];
  });
  const head = `${grouped(failed.length)} failed${failed.length > shownCount ? `, the first ${shownCount} of them` : ""}; ^ is where an answer parts from what was expected:`;
  return [head, ...rows];
}

/** Rows that are answered together. */
const batchSize = 32;

/**
 * Answers every prompt of a data set greedily, of a conversation what comes before its last learned turn, and counts the answers that equal
 * what is learned. `positions` has for each answer the place of its row among the examples.
 * Rejects with UsageError when no row ends with what is learned behind a prompt, and with the signal's reason once that is aborted.
 */
export async function exactMatch(
  { model, tokenizer }: Pick<LoadedModel, "model"> & { readonly tokenizer: Tokenizer },
  data: DataSet<Examples>,
  options: { readonly maxNewTokens?: number | undefined; readonly signal?: AbortSignal; readonly output?: Pick<Output, "draw"> } = {},
): Promise<{ readonly share: number; readonly answers: readonly Answer[]; readonly positions: readonly number[] }> {
  // Where each completion begins; the tokens stay in the data set until their batch.
  const rows: { readonly line: number; readonly border: number; readonly length: number; readonly position: number }[] = [];
  let position = 0;
  for (const { ids, labels, line } of data.examples) {
    const border = labels.lastIndexOf(ignoredLabel) + 1;
    if (border >= 1 && border < ids.length) rows.push({ line, border, length: ids.length - border, position });
    position++;
  }
  if (rows.length === 0)
    throw new UsageError(
      `${data.path}: no row has a prompt and a completion, so there is nothing to compare an answer with. Leave out --generate, or use {"prompt","completion"} rows.`,
    );
  const longest = largest(rows.map(({ length }) => length));
  const maxNewTokens = options.maxNewTokens ?? longest;
  // Rows of similar length go together, in batches of one size, so that few plans serve them all.
  rows.sort((x, y) => x.border - y.border || x.position - y.position);
  const found: { readonly answer: Answer; readonly place: number }[] = [];
  const generator = new TextGenerator(model);
  try {
    for (let start = 0; start < rows.length; start += batchSize) {
      const batch = rows.slice(start, start + batchSize).map(({ line, border, position: place }) => {
        const { ids } = data.examples.at(place) as Example; // it was there before
        return { line, place, prompt: ids.slice(0, border), completion: ids.slice(border) };
      });
      // An answer that would not fit into the context cannot be right.
      const room = contextOf(model) - largest(batch.map(({ prompt }) => prompt.length));
      const generated = await generator.generate(
        batch.map(({ prompt }) => prompt),
        {
          maxNewTokens: Math.min(maxNewTokens, room),
          temperature: 0,
          ...(options.signal && { signal: options.signal }),
        },
      );
      for (const [i, { line, place, prompt, completion }] of batch.entries()) {
        const answer = {
          line,
          prompt: tokenizer.decode(prompt),
          expected: tokenizer.decode(completion).trim(),
          answer: tokenizer.decode(generated[i] ?? []).trim(),
        };
        found.push({ answer, place });
      }
      options.output?.draw(`answered ${found.length} of ${rows.length}`);
    }
  } finally {
    generator.dispose();
  }
  options.output?.draw("");
  found.sort((a, b) => a.place - b.place);
  const answers = found.map(({ answer }) => answer);
  const share = answers.filter(({ expected, answer }) => expected === answer).length / Math.max(1, answers.length);
  return { share, answers, positions: found.map(({ place }) => place) };
}
