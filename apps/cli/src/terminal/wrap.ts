/**
 * A text's lines cut between words so that none is wider than `width`; what follows a cut is indented by `hang`. Lines that begin with white
 * space stay as they are: commands to be copied, and parts of tables and drawings. So do words that are too long.
 */
export function wrapped(text: string, width: number, hang = ""): string {
  return text
    .split("\n")
    .map((line) => (line.length <= width || /^\s/.test(line) ? line : filled(line, width, hang)))
    .join("\n");
}

function filled(line: string, width: number, hang: string): string {
  const lines: string[] = [];
  let current = "";
  for (const word of line.split(" ")) {
    const longer = current === "" ? word : `${current} ${word}`;
    if (longer.length <= width || current.trim() === "") current = longer;
    else {
      lines.push(current);
      current = `${hang}${word}`;
    }
  }
  return [...lines, current].join("\n");
}
