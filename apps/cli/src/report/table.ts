import { largest, smallest } from "@lowrank/tensor";
import { escaped } from "./html.js";

/** A cell: its text, and how good it is where that is worth a colour. */
export type Cell = string | { readonly text: string; readonly tone: "best" | "bad" };

const textOf = (cell: Cell): string => (typeof cell === "string" ? cell : cell.text);

/** A table as HTML that scrolls inside its own box when it is wider than the page. The first column is text, the others are numbers. */
export function htmlTable(caption: string, head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const headCells = head.map((text) => `<th scope="col">${escaped(text)}</th>`).join("");
  const body = rows
    .map((row) => {
      const cells = row.map((cell, column) => {
        if (column === 0) return `<th scope="row">${escaped(textOf(cell))}</th>`;
        const tone = typeof cell === "string" ? "" : ` class="${cell.tone}"`;
        return `<td${tone}>${escaped(textOf(cell))}</td>`;
      });
      return `<tr>${cells.join("")}</tr>`;
    })
    .join("\n");
  return `<div class="scroll" tabindex="0" role="region" aria-label="${escaped(caption)}"><table>\n<thead><tr>${headCells}</tr></thead>\n<tbody>\n${body}\n</tbody></table></div><p class="cue">Scroll sideways for the other columns →</p>`;
}

/** The rows with the best of a column marked: the smallest finite value, or the largest. Values that are not numbers stay as they are, and all where none is better than another. */
export function bestMarked(texts: readonly string[], values: readonly (number | null)[], isLargest = false): Cell[] {
  const finite = values.filter((value): value is number => value !== null && Number.isFinite(value));
  const best = isLargest ? largest(finite) : smallest(finite);
  return texts.map((text, i) => (new Set(finite).size > 1 && values[i] === best ? { text, tone: "best" } : text));
}
