import type { DType } from "../../tensor/dtype.js";
import type { Slot } from "../kernel.js";
import { type Code, i32, type Local, type ModuleBuilder, memory, op } from "./assembler.js";
import { kernelParams, printTileLoop } from "./loop.js";
import type { LoopProgram } from "./lower.js";
import { matmulWords, printPlace, readWord } from "./matmul.js";
import type { ScalarMath } from "./scalar-math.js";

/** Arguments after the matmul's own: the row and the column of the whole product at which this part begins. The addresses of the epilogue's slots follow. */
export const epilogueWords = ["firstRow", "firstColumn"] as const;

/** Writes a function that computes a tile of a product with the function `entry` and then runs a loop over it. */
export function printEpilogue(
  module: ModuleBuilder,
  scalarMath: ScalarMath,
  entry: number,
  program: LoopProgram,
  dtypes: (slot: Slot) => DType,
  name: string,
): void {
  const f = module.function([...kernelParams], [], name);
  const [words, tile, scratch] = [f.param(0), f.param(1), f.param(2)];
  f.emit(module.callIndirect([...kernelParams], [], i32(entry), words.get, tile.get, scratch.get));
  const at = (index: number): Local => f.let("i32", memory("i32.load", index * 4, words.get));
  const tileRows = readWord(f, "tileRows");
  const tileColumns = readWord(f, "tileColumns");
  const m = readWord(f, "m");
  const n = readWord(f, "n");
  const [firstRow, firstColumn] = [at(matmulWords.length), at(matmulWords.length + 1)];
  const { batch, row, column } = printPlace(f, tile.get);
  const base = f.let("i32", op("i32.add", firstRow.get, op("i32.mul", batch.get, m.get)));
  const end = (start: Local, size: Local, limit: Local): Code => {
    const stop = f.let("i32", op("i32.add", start.get, size.get));
    return [stop.get, limit.get, op("i32.lt_u", stop.get, limit.get), op("select")];
  };
  const add = (a: Local, b: Code): Code => op("i32.add", a.get, b);
  printTileLoop(f, scalarMath, program, dtypes, (matmulWords.length + epilogueWords.length) * 4, {
    firstRow: add(base, row.get),
    endRow: add(base, end(row, tileRows, m)),
    firstColumn: add(firstColumn, column.get),
    endColumn: add(firstColumn, end(column, tileColumns, n)),
  });
}
