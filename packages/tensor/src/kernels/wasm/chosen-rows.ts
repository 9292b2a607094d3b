import { type Code, type FunctionBuilder, i32, type Local, type ModuleBuilder, memory, memoryCopy, memoryFill, op } from "./assembler.js";
import { kernelParams } from "./loop.js";

/**
 * Work on some rows only, chosen while it runs: the rows' numbers among the chosen ones are listed, the rows are moved together, worked on,
 * and moved back to where they belong. The chosen rows keep their order, so results do not depend on which thread does what.
 */

const add = (a: Code, b: Code): Code => op("i32.add", a, b);
const mul = (a: Code, b: Code): Code => op("i32.mul", a, b);

function wordsOf<Name extends string>(f: FunctionBuilder, names: readonly Name[]): Record<Name, Local> {
  return Object.fromEntries(names.map((name, i) => [name, f.let("i32", memory("i32.load", i * 4, f.param(0).get))])) as Record<Name, Local>;
}

/** Arguments of the function that lists rows: `counts` has a word for each chunk of `chunkRows` chosen rows, `skipped` is the label of the others. */
export const listWords = ["labels", "places", "counts", "rows", "chunks", "chunkRows", "skipped"] as const;

/** places[row] = number of the row among the chosen ones, or -1; counts[chunk] = chosen rows of the chunk. One tile. */
export function printListRows(module: ModuleBuilder, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const { labels, places, counts, rows, chunks, chunkRows, skipped } = wordsOf(f, listWords);
  const count = f.let("i32", i32(0));
  const row = f.local("i32");
  const isChosen = f.local("i32");
  f.for(row, rows.get, i32(1), () => {
    const byte = f.let("i32", mul(row.get, i32(4)));
    f.emit(isChosen.set(op("i32.ne", memory("i32.load", 0, add(labels.get, byte.get)), skipped.get)));
    f.emit(memory("i32.store", 0, add(places.get, byte.get), [count.get, i32(-1), isChosen.get, op("select")]));
    f.emit(count.set(add(count.get, isChosen.get)));
  });
  const chunk = f.local("i32");
  f.for(chunk, chunks.get, i32(1), () => {
    const inChunk = f.let("i32", [count.get, chunkRows.get, op("i32.lt_u", count.get, chunkRows.get), op("select")]);
    f.emit(memory("i32.store", 0, add(counts.get, mul(chunk.get, i32(4))), inChunk.get));
    f.emit(count.set(op("i32.sub", count.get, inChunk.get)));
  });
}

/** Arguments of the functions that move a chunk's rows, whose first is chosen row number `first`. After them, for each array, `arrayWords`. */
export const moveWords = ["places", "first", "chunkRows", "rows", "tileRows", "arrays"] as const;
/** `bytes` is a row's; rows that were not chosen are filled with `fill` where they are one word, else with zeros. */
export const arrayWords = ["from", "to", "bytes", "fill"] as const;

/** Moves rows together, or back: then the first chunk fills the rows that were not chosen. A tile is `tileRows` rows of all. */
export function printMoveRows(module: ModuleBuilder, way: "together" | "back", name: string): void {
  const f = module.function([...kernelParams], [], name);
  const { places, first, chunkRows, rows, tileRows, arrays } = wordsOf(f, moveWords);
  const row = f.let("i32", mul(f.param(1).get, tileRows.get));
  const limit = f.let("i32", add(row.get, tileRows.get));
  const end = f.let("i32", [limit.get, rows.get, op("i32.lt_u", limit.get, rows.get), op("select")]);
  const array = f.local("i32");
  const eachArray = (body: (from: Local, to: Local, bytes: Local, fill: Local) => void): void => {
    f.for(array, arrays.get, i32(1), () => {
      const at = f.let("i32", add(f.param(0).get, mul(array.get, i32(arrayWords.length * 4))));
      const [from, to, bytes, fill] = arrayWords.map((_, i) => f.let("i32", memory("i32.load", (moveWords.length + i) * 4, at.get)));
      if (from && to && bytes && fill) body(from, to, bytes, fill);
    });
  };
  f.while(row, end.get, i32(1), () => {
    const place = f.let("i32", memory("i32.load", 0, add(places.get, mul(row.get, i32(4)))));
    const inChunk = f.let("i32", op("i32.sub", place.get, first.get));
    const isOfChunk = op("i32.and", op("i32.ge_s", place.get, i32(0)), op("i32.lt_u", inChunk.get, chunkRows.get));
    f.if(isOfChunk, () => {
      const [source, target] = way === "together" ? [row, inChunk] : [inChunk, row];
      eachArray((from, to, bytes) => {
        f.emit(from.set(add(from.get, mul(source.get, bytes.get))));
        f.emit(to.set(add(to.get, mul(target.get, bytes.get))));
        f.if(
          op("i32.eq", bytes.get, i32(4)),
          () => f.emit(memory("i32.store", 0, to.get, memory("i32.load", 0, from.get))),
          () => f.emit(memoryCopy(to.get, from.get, bytes.get)),
        );
      });
    });
    if (way === "together") return;
    f.if(op("i32.and", op("i32.lt_s", place.get, i32(0)), op("i32.eqz", first.get)), () => {
      eachArray((_, to, bytes, fill) => {
        f.emit(to.set(add(to.get, mul(row.get, bytes.get))));
        f.if(
          op("i32.eq", bytes.get, i32(4)),
          () => f.emit(memory("i32.store", 0, to.get, fill.get)),
          () => f.emit(memoryFill(to.get, i32(0), bytes.get)),
        );
      });
    });
  });
}

/** Arguments of the function that leaves out rows: where the count lies, the rows of a tile, and the function that computes the tiles. */
export const countedWords = ["count", "perRow", "tileRows", "entry", "words"] as const;

/** Runs a tile of another function if it begins before the count of rows. */
export function printCounted(module: ModuleBuilder, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const { count, perRow, tileRows, entry, words } = wordsOf(f, countedWords);
  const end = mul(memory("i32.load", 0, count.get), perRow.get);
  const isInside = op("i32.lt_u", mul(f.param(1).get, tileRows.get), end);
  f.if(isInside, () => f.emit(module.callIndirect([...kernelParams], [], entry.get, words.get, f.param(1).get, f.param(2).get)));
}
