import { printable, shownLine } from "./terminal/printable.js";
import { wrapped } from "./terminal/wrap.js";

/** Where a command speaks: with --json everything for people goes to stderr and one object to stdout. */
export interface Output {
  readonly isJson: boolean;
  /** True where progress may be drawn over itself. */
  readonly isTerminal: boolean;
  /** Columns to draw in, at most 80. */
  readonly columns: number;
  /** Columns that a table may take: the terminal's, or any number where output goes to a file or another program. */
  readonly tableColumns: number;
  /** A line for people. Controls in it are shown as escapes, and names are cut: both may come from files. Commands to be copied stand whole below. */
  say(line?: string, ...commands: readonly string[]): void;
  /** Text that is not cut: what a model wrote. A terminal is shown its controls as escapes; a pipe gets every byte. */
  whole(text: string): void;
  /** A line that holds colours, whose foreign parts are escaped already. */
  styled(line: string): void;
  /** A part of such a text, without a line's end. */
  part(text: string): void;
  /** A line for people that is no result: warnings, remarks. Always stderr. Shown as with `say`; a command to be copied stands whole below. */
  note(line: string, command?: string): void;
  /** Draws over the current line, on terminals only. */
  draw(line: string): void;
  /** The command's result as the one JSON object, with --json only. */
  result(value: object): void;
}

/** A line for people as it is written: on a terminal, which would break words, it is cut between them. */
function spoken(line: string, { isTTY, columns }: { readonly isTTY?: boolean; readonly columns?: number }): string {
  const shown = shownLine(line);
  return isTTY === true ? wrapped(shown, columns ?? 80) : shown;
}

/** The process's own output. */
export function processOutput(isJson: boolean): Output {
  const people = isJson ? process.stderr : process.stdout;
  const isTerminal = people.isTTY === true;
  let drawn = false;
  const clear = (): void => {
    if (drawn) people.write("\r\u001b[2K");
    drawn = false;
  };
  return {
    isJson,
    isTerminal,
    get columns() {
      return Math.min(people.columns ?? 80, 80);
    },
    get tableColumns() {
      return isTerminal ? (people.columns ?? 80) : Number.POSITIVE_INFINITY;
    },
    say(line = "", ...commands) {
      clear();
      people.write(`${spoken(line, people)}\n`);
      for (const command of commands) people.write(`  ${printable(command)}\n`);
    },
    whole(text) {
      clear();
      people.write(`${isTerminal ? printable(text) : text}\n`);
    },
    styled(line) {
      clear();
      people.write(`${line}\n`);
    },
    part(text) {
      clear();
      people.write(isTerminal ? printable(text) : text);
    },
    note(line, command) {
      clear();
      process.stderr.write(`${spoken(line, process.stderr)}\n`);
      if (command !== undefined) process.stderr.write(`  ${printable(command)}\n`);
    },
    draw(line) {
      if (!isTerminal) return;
      clear();
      // A line that wraps could not be drawn over.
      people.write(shownLine(line).slice(0, Math.max(1, (people.columns ?? 80) - 1)));
      drawn = true;
    },
    result(value) {
      if (isJson) process.stdout.write(`${JSON.stringify(value)}\n`);
    },
  };
}
