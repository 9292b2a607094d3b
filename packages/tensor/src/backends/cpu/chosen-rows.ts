import {
  arrayWords,
  countedWords,
  listWords,
  moveWords,
  printCounted,
  printListRows,
  printMoveRows,
} from "../../kernels/wasm/chosen-rows.js";
import type { KernelLibrary } from "./library.js";
import type { Step, Word } from "./steps.js";

/** The rows whose label is not `skipped`, taken by chunks of at most `chunkRows`. */
export interface ChosenRows {
  readonly labels: Word;
  readonly skipped: number;
  /** Memory for a word a row and a word a chunk. */
  readonly places: Word;
  readonly counts: Word;
  readonly rows: number;
  readonly chunkRows: number;
}

/** An array that has a row for each; `fill` is what rows of one word hold that are not chosen, longer ones become zero. */
export interface RowArray {
  readonly from: Word;
  readonly to: Word;
  readonly bytes: number;
  readonly fill: number;
}

/** Bytes of rows that a tile moves at most. */
const tileBytes = 65536;

/** Lists the chosen rows and counts those of each chunk. */
export function listStep(chosen: ChosenRows, library: KernelLibrary): Step {
  const { rows, chunkRows } = chosen;
  const words = { ...chosen, chunks: Math.ceil(rows / chunkRows) };
  return {
    entry: library.entry("listRows", (module, _, name) => printListRows(module, name)),
    tiles: 1,
    words: listWords.map((word) => words[word]),
    cost: rows,
  };
}

/** Moves a chunk's rows of some arrays together, or back to where they belong. */
export function moveStep(
  way: "together" | "back",
  chosen: ChosenRows,
  first: number,
  arrays: readonly RowArray[],
  library: KernelLibrary,
): Step {
  const { places, chunkRows, rows } = chosen;
  const rowBytes = arrays.reduce((sum, { bytes }) => sum + bytes, 0);
  const tileRows = Math.max(1, Math.min(Math.ceil(rows / 8), Math.ceil(tileBytes / rowBytes)));
  const words = { places, first, chunkRows, rows, tileRows, arrays: arrays.length };
  return {
    entry: library.entry(`moveRows;${way}`, (module, _, name) => printMoveRows(module, way, name)),
    tiles: Math.ceil(rows / tileRows),
    words: [...moveWords.map((word) => words[word]), ...arrays.flatMap((array) => arrayWords.map((word) => array[word]))],
    cost: rows * 10 + Math.min(rows, chunkRows) * rowBytes * 0.1,
  };
}

/**
 * A loop's step without the tiles that begin after `count` rows, of which each is `perRow` of the loop's own; the step itself where its tiles do
 * not follow the rows.
 */
export function countedStep(step: Step, count: Word, library: KernelLibrary, perRow = 1): Step {
  const { tileRows, entry } = step;
  if (tileRows === undefined) return step;
  const words = { count, perRow, tileRows, entry, words: { kind: "words", words: step.words } } as const;
  return {
    ...step,
    entry: library.entry("counted", (module, _, name) => printCounted(module, name)),
    words: countedWords.map((word) => words[word]),
  };
}
