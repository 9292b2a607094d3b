import type { Preview, PreviewPart, PreviewRow } from "@lowrank/models";
import type { Output } from "../output.js";
import { grouped, oneLine } from "../terminal/format.js";
import { printable } from "../terminal/printable.js";

/** Errors that are shown. */
const shownErrors = 20;

/** The rows of a preview for a terminal: what is in the loss in colour there, and between ⟦ and ⟧ elsewhere. */
export function rowLines({ rows, path }: Pick<Preview, "rows" | "path">, isTerminal: boolean): string[] {
  return rows.flatMap((row) => [
    `${path}:${row.line}  ${grouped(row.tokenCount)} tokens, ${grouped(row.learnedTokenCount)} of them in the loss (${isTerminal ? "green" : "⟦ ⟧"})`,
    ...rowText(row, isTerminal)
      .split("\n")
      .map((line) => `  ${line}`),
    "",
  ]);
}

function rowText({ parts }: PreviewRow, isTerminal: boolean): string {
  if (isTerminal) return parts.map(coloured).join("");
  return parts
    .map((part, i) => {
      const opens = part.isLearned && !parts[i - 1]?.isLearned;
      const closes = part.isLearned && !parts[i + 1]?.isLearned;
      return `${opens ? "⟦" : ""}${printable(part.text)}${closes ? "⟧" : ""}`;
    })
    .join("");
}

/** Green for the loss, grey for the rest; special tokens are reversed. */
function coloured({ text, isLearned, isSpecial }: PreviewPart): string {
  const codes = [isLearned ? "32" : "90", ...(isSpecial ? ["7"] : [])].join(";");
  // A line's end ends the colour, so that what is cut between them stays as it is.
  return printable(text)
    .split("\n")
    .map((line) => (line === "" ? "" : `\u001b[${codes}m${line}\u001b[0m`))
    .join("\n");
}

/** Lengths in at most so many classes. */
const classCount = 10;

/** A histogram: classes of lengths of equal width, and how many rows each has. */
export function lengthClasses(lengths: readonly number[]): { readonly from: number; readonly to: number; readonly count: number }[] {
  if (lengths.length === 0) return [];
  const most = lengths.reduce((a, b) => Math.max(a, b), 0);
  const width = Math.max(1, Math.ceil((most + 1) / classCount));
  const counts = new Array<number>(Math.floor(most / width) + 1).fill(0);
  for (const length of lengths) counts[Math.floor(length / width)] = (counts[Math.floor(length / width)] ?? 0) + 1;
  return counts.map((count, i) => ({ from: i * width, to: (i + 1) * width - 1, count }));
}

/** The layouts that rows were read in, with their rows where there are several, and the list in which they stood. */
export function kindsOf({ layouts, listFields }: Pick<Preview, "layouts" | "listFields">): string {
  const kinds =
    [...layouts]
      .map(([name, rows]) => (layouts.size > 1 ? `${name} (${grouped(rows)} ${rows === 1 ? "row" : "rows"})` : name))
      .join(", ") || "nothing";
  return [kinds, ...listFields.map((name) => `from the list "${name}"`)].join(", ");
}

/** What is counted, and what is odd, a sentence each. */
export function countLines(preview: Preview, columns: number, maxLength: number | undefined): string[] {
  const { path, rowCount, tokenCount, learnedTokenCount, lengths, errors } = preview;
  const share = tokenCount > 0 ? ` (${((100 * learnedTokenCount) / tokenCount).toFixed(1)} %)` : "";
  return [
    `${path}: ${grouped(rowCount)} ${rowCount === 1 ? "row" : "rows"}, read as ${kindsOf(preview)}; ${grouped(tokenCount)} tokens, ${grouped(learnedTokenCount)} of them in the loss${share}`,
    "",
    ...histogramLines(lengths, columns),
    ...oddities(preview, maxLength),
    ...(errors.length > 0 && rowCount > 0 ? [`${grouped(errors.length)} ${errors.length === 1 ? "row" : "rows"} cannot be used:`] : []),
    ...errors.slice(0, shownErrors).map(({ message }) => `  ${message}`),
    ...(errors.length > shownErrors ? [`  and ${grouped(errors.length - shownErrors)} more`] : []),
  ];
}

function histogramLines(lengths: readonly number[], columns: number): string[] {
  const classes = lengthClasses(lengths);
  const most = classes.reduce((largest, { count }) => Math.max(largest, count), 1);
  const label = ({ from, to }: { readonly from: number; readonly to: number }): string => `${from}–${to}`;
  const width = classes.reduce((largest, each) => Math.max(largest, label(each).length), 0);
  const room = Math.max(10, columns - width - 16);
  const sorted = [...lengths].sort((a, b) => a - b);
  const at = (share: number): string => grouped(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0);
  if (classes.length === 0) return [];
  return [
    `tokens a row: ${at(0)} to ${at(1)}, median ${at(0.5)}, nine of ten below ${at(0.9)}`,
    ...classes.map(
      (each) => `  ${label(each).padStart(width)}  ${"█".repeat(Math.ceil((room * each.count) / most))} ${grouped(each.count)}`,
    ),
    "",
  ];
}

function oddities(preview: Preview, maxLength: number | undefined): string[] {
  const {
    truncatedCount,
    duplicateCount,
    repeatedAnswers,
    scripts,
    controls,
    splitBorderCount,
    extendedTurnCount,
    emptyTurnCount,
    unusedFields,
  } = preview;
  const letters = scripts.reduce((sum, { count }) => sum + count, 0);
  const percent = (count: number): string => `${((100 * count) / letters).toFixed(count / letters < 0.01 ? 2 : 0)} %`;
  const code = (value: number): string => `U+${value.toString(16).toUpperCase().padStart(4, "0")}`;
  return [
    ...(scripts.length > 0 ? [`scripts: ${scripts.map(({ name, count }) => `${name} ${percent(count)}`).join(", ")}`] : []),
    ...(controls.length > 0
      ? [`control characters: ${controls.map((each) => `${code(each.code)} ${grouped(each.count)} times`).join(", ")}`]
      : []),
    ...(truncatedCount > 0 ? [`${grouped(truncatedCount)} rows are cut to ${maxLength} tokens, and lose their end token`] : []),
    ...(splitBorderCount > 0
      ? [`${grouped(splitBorderCount)} rows have the border between prompt and completion inside a token, which is in the loss`]
      : []),
    ...(extendedTurnCount > 0
      ? [`${grouped(extendedTurnCount)} turns end in the chat template's marks before their end token, which is in the loss all the same`]
      : []),
    ...(emptyTurnCount > 0 ? [`${grouped(emptyTurnCount)} turns that are learned say nothing, and teach to end at once`] : []),
    ...(duplicateCount > 0 ? [`${grouped(duplicateCount)} rows say what an earlier row says`] : []),
    ...(repeatedAnswers.length > 0
      ? [
          "answers that several rows have:",
          ...repeatedAnswers.map(({ text, count }) => `  ${grouped(count)} times ${JSON.stringify(oneLine(printable(text), 60))}`),
        ]
      : []),
    ...(unusedFields.length > 0 ? [`fields that change nothing: ${unusedFields.map((name) => `"${name}"`).join(", ")}`] : []),
  ];
}

/** Characters of a part that are shown before training starts; what is longer is cut in its middle. */
const shortPart = 400;

/** Shows the first row of what is learned, as `data preview` does, cut where it is long. */
export function sayRow(row: PreviewRow, output: Output): void {
  const parts = row.parts.map((part) => ({ ...part, text: cut(part.text) }));
  output.say(`the first row, ${output.isTerminal ? "green" : "⟦ ⟧"} is in the loss:`);
  for (const line of rowText({ ...row, parts }, output.isTerminal).split("\n")) output.styled(`  ${line}`);
}

function cut(text: string): string {
  if (text.length <= shortPart) return text;
  return `${text.slice(0, shortPart / 2)} … ${text.slice(-shortPart / 2)}`;
}
