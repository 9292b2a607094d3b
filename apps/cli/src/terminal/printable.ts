/** The longest name that is shown whole; files may hold names of any length. */
const longestName = 200;

/**
 * Characters that a terminal obeys instead of showing them: C0 with ESC, DEL, C1 (U+009B is CSI in one character), the separators of lines
 * and paragraphs, and those that reorder text (Unicode Standard Annex 9, explicit directional formatting). Tab and line feed are not among them.
 */
const controls = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;

function escaped(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}

/** A text of several lines that no terminal obeys: every control but line feeds and tabs is shown as its escape, `\x1b`. */
export function printable(text: string): string {
  return text.replace(controls, (character) => (character === "\n" || character === "\t" ? character : escaped(character)));
}

/** A name from a file as it is shown: on one line, controls as escapes, and cut at 200 characters. */
export function shownName(name: string): string {
  const start = name.length > longestName ? `${name.slice(0, longestName)}…` : name;
  return start.replaceAll("\n", "\\n").replaceAll("\t", "\\t").replace(controls, escaped);
}

/** A line as `shownLine` shows it, but for a command in it: that is to be copied, so that it stays whole. */
export function shownAround(line: string, command: string | undefined): string {
  return command === undefined || command === "" ? shownLine(line) : line.split(command).map(shownLine).join(printable(command));
}

/** A line for people in which every name is cut at 200 characters: what stands between double quotes, and words without white space. */
export function shownLine(line: string): string {
  return printable(line).replace(/"([^"\n]{201,})"|\S{201,}/gu, (found, quoted?: string) =>
    quoted === undefined ? `${found.slice(0, longestName)}…` : `"${quoted.slice(0, longestName)}…"`,
  );
}
