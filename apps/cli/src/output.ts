/** Where a command speaks: with --json everything for people goes to stderr and one object to stdout. */
export interface Output {
  readonly isJson: boolean;
  /** True where progress may be drawn over itself. */
  readonly isTerminal: boolean;
  /** Columns to draw in, at most 80 by default. */
  readonly columns: number;
  /** A line for people. */
  say(line?: string): void;
  /** A line for people that is no result: warnings, remarks. Always stderr. */
  note(line: string): void;
  /** Draws over the current line, on terminals only. */
  draw(line: string): void;
  /** The command's result as the one JSON object, with --json only. */
  result(value: object): void;
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
    columns: Math.min(people.columns ?? 80, 80),
    say(line = "") {
      clear();
      people.write(`${line}\n`);
    },
    note(line) {
      clear();
      process.stderr.write(`${line}\n`);
    },
    draw(line) {
      if (!isTerminal) return;
      clear();
      people.write(line);
      drawn = true;
    },
    result(value) {
      if (isJson) process.stdout.write(`${JSON.stringify(value)}\n`);
    },
  };
}
