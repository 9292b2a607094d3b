import { formatReport, type ParameterReport, reportRows } from "@lowrank/lora";
import { largest } from "@lowrank/tensor";
import { shownName } from "./printable.js";

/** 1234567 → "1,234,567". */
export function grouped(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Seconds as "42 s", "3 min 05 s" or "2 h 07 min". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const pad = (n: number): string => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

/** Bytes in the largest unit below, powers of ten: "3.2 MB". */
export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  return `${power === 0 ? value : (value / 1000 ** power).toFixed(1)} ${units[power]}`;
}

/** How a table is set. */
export interface TableOptions {
  /** All columns but the first end in line. */
  readonly areNumbers?: boolean;
  /** The first column names tensors or layers, whose names differ at their ends: they are cut in front. */
  readonly arePaths?: boolean;
  /** What a line may take. A wider table is set as several below one another, each with the first column. */
  readonly width?: number;
}

const gap = 2;

/** Rows as aligned columns; the first row is the head, with a rule below it. */
export function tableLines(
  cells: readonly (readonly string[])[],
  { areNumbers = false, arePaths = false, width = Number.POSITIVE_INFINITY }: TableOptions = {},
): string[] {
  // Before they are measured: an escape is longer than the character that it shows.
  const rows = cells.map((row) => row.map(shownName));
  const widths = (rows[0] ?? []).map((_, column) => largest(rows.map((row) => row[column]?.length ?? 0)));
  const whole = widths.reduce((sum, each) => sum + each + gap, -gap);
  if (whole <= width) return block(rows, widths, areNumbers);
  const [first = 0, ...others] = widths;
  const names = rows.map(([name = ""]) => name);
  const cut = arePaths ? frontCut : middleCut;
  const isTold = (label: number): boolean => new Set(names.map((name) => cut(name, label))).size === new Set(names).size;
  const most = Math.min(first, width - gap - largest(others));
  let label = Math.min(first, Math.max(8, Math.floor(width / 2)));
  // Names that differ stay different, where there is room.
  while (label < most && !isTold(label)) label++;
  const groups: number[][] = [];
  let taken = Number.POSITIVE_INFINITY;
  for (const [i, each] of others.entries()) {
    if (taken + gap + each > width) {
      groups.push([]);
      taken = label;
    }
    groups.at(-1)?.push(i + 1);
    taken += gap + each;
  }
  const named = rows.map(([name = "", ...values]) => [cut(name, label), ...values]);
  return groups.flatMap((columns, i) => {
    const part = named.map((row) => [0, ...columns].map((column) => row[column] ?? ""));
    return [...(i > 0 ? [""] : []), ...block(part, [label, ...columns.map((column) => widths[column] ?? 0)], areNumbers)];
  });
}

function block(rows: readonly (readonly string[])[], widths: readonly number[], areNumbers: boolean): string[] {
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (areNumbers && column > 0 ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)))
      .join(" ".repeat(gap))
      .trimEnd();
  const [head, ...body] = rows;
  return head ? [line(head), widths.map((width) => "─".repeat(width)).join("─".repeat(gap)), ...body.map(line)] : [];
}

/** The end of a name, of at most `width` characters. */
function frontCut(name: string, width: number): string {
  return name.length <= width ? name : `…${name.slice(name.length - (width - 1))}`;
}

/** A name of at most `width` characters: what tells names apart is at both ends. */
function middleCut(name: string, width: number): string {
  if (name.length <= width) return name;
  const front = Math.floor((width - 1) / 2);
  return `${name.slice(0, front)}…${name.slice(name.length - (width - 1 - front))}`;
}

/** What is trained and what is frozen, within `width` columns. */
export function reportLines(report: ParameterReport, width: number): string[] {
  const lines = formatReport(report).split("\n");
  return lines.every((line) => line.length <= width) ? lines : tableLines(reportRows(report), { areNumbers: true, width });
}

/** A text on one line of at most `width` characters, line breaks shown as ⏎. */
export function oneLine(text: string, width: number): string {
  const flat = text.replace(/\n/g, "⏎").replace(/\s+/g, " ").trim();
  return flat.length <= width ? flat : `${flat.slice(0, Math.max(0, width - 1))}…`;
}
