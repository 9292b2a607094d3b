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
  const [firstRow, firstColumn] = [at(matmulWords.length), at(matmulWords.length + 1)];
  const { batch, row, rowEnd, column, columnEnd } = printPlace(f, tile.get);
  const base = f.let("i32", op("i32.add", firstRow.get, op("i32.mul", batch.get, readWord(f, "m").get)));
  const add = (a: Local, b: Local): Code => op("i32.add", a.get, b.get);
  printTileLoop(f, scalarMath, program, dtypes, (matmulWords.length + epilogueWords.length) * 4, {
    firstRow: add(base, row),
    endRow: add(base, rowEnd),
    firstColumn: add(firstColumn, column),
    endColumn: add(firstColumn, columnEnd),
  });
}
