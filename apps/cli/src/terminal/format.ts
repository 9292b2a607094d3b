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

/** Rows as aligned columns; the first row is the head, with a rule below it. `areNumbers`: all columns but the first end in line. */
export function tableLines(cells: readonly (readonly string[])[], areNumbers = false): string[] {
  // Before they are measured: an escape is longer than the character that it shows.
  const rows = cells.map((row) => row.map(shownName));
  const widths = (rows[0] ?? []).map((_, column) => largest(rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (areNumbers && column > 0 ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)))
      .join("  ")
      .trimEnd();
  const [head, ...body] = rows;
  return head ? [line(head), widths.map((width) => "─".repeat(width)).join("──"), ...body.map(line)] : [];
}

/** A text on one line of at most `width` characters, line breaks shown as ⏎. */
export function oneLine(text: string, width: number): string {
  const flat = text.replace(/\n/g, "⏎").replace(/\s+/g, " ").trim();
  return flat.length <= width ? flat : `${flat.slice(0, Math.max(0, width - 1))}…`;
}

/** An argument as a shell takes it. */
export function shellWord(word: string): string {
  return /^[\w./:=,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
