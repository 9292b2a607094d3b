import { i32, type ModuleBuilder, memory } from "./assembler.js";
import { kernelParams } from "./loop.js";

/**
 * Writes a function that computes a tile of a product with the function `entry` and adds the same tile of further ones with the functions
 * `added`, while it is in cache. The addresses of their arguments stand among its own from word `at` on.
 */
export function printProductSum(module: ModuleBuilder, entry: number, added: readonly number[], at: number, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const [words, tile, scratch] = [f.param(0), f.param(1), f.param(2)];
  f.emit(module.callIndirect([...kernelParams], [], i32(entry), words.get, tile.get, scratch.get));
  for (const [i, other] of added.entries()) {
    const own = memory("i32.load", (at + i) * 4, words.get);
    f.emit(module.callIndirect([...kernelParams], [], i32(other), own, tile.get, scratch.get));
  }
}
