import type { DType } from "../../tensor/dtype.js";
import { type Code, call, type FunctionBuilder, f32x4, i32, type Local, type ModuleBuilder, memory, op } from "./assembler.js";
import { kernelParams } from "./loop.js";
import { add, mul, packPanels, sub } from "./pack.js";

/**
 * Matrix product by packed panels (Goto & van de Geijn 2008). One step packs `b` into panels of `panelWidth` columns, k after k, widened
 * to f32; the next computes tiles of `out`, each of which packs its rows of `a` into panels of `PanelHeight` rows of the thread's own: what
 * one core writes and another reads costs more than packing a few times. A `b` that stays the same from run to run is kept as panels and not
 * packed. The functions serve every shape: sizes and strides are arguments.
 *
 * The sums are the classical ones, whose errors are relative to Σ |a| |b| of each element. Strassen's algorithm would save an eighth of the
 * products, but errs relative to the largest elements of both matrices: where half the rows of `a` are 10⁻⁴ of the others, by 10⁴ times as
 * much.
 */
export type PanelHeight = 4 | 6;
export const panelWidth = 8;
/**
 * Depth of a block of k at most: a panel of b (32 KiB) and one of a (24 KiB) then come from the first- or second-level cache. Within a block
 * terms are added one after another; their rounding errors grow as √k, then as those of blocks added up.
 */
export const maxBlockDepth = 1024;
/** Rows of a tile at most: its packed block of a (168 KiB) then stays in the second-level cache. */
const mostRows = 42;
const maxBlockBytes = mostRows * maxBlockDepth * 4;
/** What a tile needs of a thread's own memory: the packed block of a, then one register tile. */
export const matmulScratchBytes: number = maxBlockBytes + 6 * panelWidth * 4;

/** Rows of a tile at most, in whole panels. */
export function maxTileRows(height: PanelHeight): number {
  return mostRows - (mostRows % height);
}

/** The arguments of a product: 32-bit words, addresses and strides in bytes. */
export const matmulWords = [
  "a",
  "b",
  "out",
  "packedB",
  /** Addresses of m and of k: steps before may have counted them. */
  "m",
  "n",
  "k",
  /** Depth of the blocks of k, each of which adds its products to those before it. */
  "blockDepth",
  "aRow",
  "aColumn",
  "bRow",
  "bColumn",
  /** Tables of the byte offsets of each batch's matrices. */
  "aOffsets",
  "bOffsets",
  "packedBOffsets",
  "outOffsets",
  /** Bytes between the rows of out. */
  "outRow",
  /** Tiles of one batch: along the rows and in all, those of the same columns one after another. */
  "rowTiles",
  "tiles",
  /** Tiles differ by a panel of so many rows at most, the larger ones evenly among the others; columns (whole panels) of a tile. */
  "panelRows",
  "tileColumns",
  /** 1 where the product is added to what `out` holds. */
  "adds",
  /** Of products of integers: by what those of each row and group are multiplied, sums of each row's f32 there, and the same of the columns. */
  "rowScales",
  "rowSums",
  "columnFactors",
  "columnShifts",
] as const;

export type MatmulWord = (typeof matmulWords)[number];

type Words = Record<MatmulWord, Local>;

export function readWord(f: FunctionBuilder, name: MatmulWord): Local {
  const word = memory("i32.load", matmulWords.indexOf(name) * 4, f.param(0).get);
  return f.let("i32", name === "m" || name === "k" ? memory("i32.load", 0, word) : word);
}

export function readWords(f: FunctionBuilder, names: readonly MatmulWord[]): Words {
  return Object.fromEntries(names.map((name) => [name, readWord(f, name)])) as Words;
}

export function minimum(f: FunctionBuilder, a: Code, b: Code): Local {
  const x = f.let("i32", a);
  const y = f.let("i32", b);
  return f.let("i32", [x.get, y.get, op("i32.lt_u", x.get, y.get), op("select")]);
}

export function tableEntry(table: Local, index: Code): Code {
  return memory("i32.load", 0, add(table.get, op("i32.shl", index, i32(2))));
}

/** What a tile covers: its batch, and its rows and columns there. */
export interface Place {
  readonly batch: Local;
  readonly row: Local;
  readonly rowEnd: Local;
  readonly column: Local;
  readonly columnEnd: Local;
}

/** The place of the tile of a number. Fewer rows may be counted than there are tiles for: the last tiles are then empty. */
export function printPlace(f: FunctionBuilder, number: Code): Place {
  const words = readWords(f, ["m", "n", "rowTiles", "tiles", "panelRows", "tileColumns"]);
  const batch = f.let("i32", op("i32.div_u", number, words.tiles.get));
  const tile = f.let("i32", op("i32.rem_u", number, words.tiles.get));
  const rowTile = f.let("i32", op("i32.rem_u", tile.get, words.rowTiles.get));
  const column = f.let("i32", mul(op("i32.div_u", tile.get, words.rowTiles.get), words.tileColumns.get));
  const panels = f.let("i32", op("i32.div_u", add(words.m.get, sub(words.panelRows.get, i32(1))), words.panelRows.get));
  const wide = (value: Local): Code => op("i64.extend_i32_u", value.get);
  const start = (index: Local): Local => {
    const before = op("i64.div_u", op("i64.mul", wide(panels), wide(index)), wide(words.rowTiles));
    return f.let("i32", mul(op("i32.wrap_i64", before), words.panelRows.get));
  };
  return {
    batch,
    row: minimum(f, words.m.get, start(rowTile).get),
    rowEnd: minimum(f, words.m.get, start(f.let("i32", add(rowTile.get, i32(1)))).get),
    column,
    columnEnd: minimum(f, words.n.get, add(column.get, words.tileColumns.get)),
  };
}

/** Computes one tile of out, whose rows of a are of the given type. */
export function printMatmul(module: ModuleBuilder, dtype: DType, height: PanelHeight, name: string): void {
  const registerTile = printRegisterTile(module, height);
  const f = module.function([...kernelParams], [], name);
  const scratch = f.param(2);
  const words = readWords(f, [
    "a",
    "out",
    "packedB",
    "k",
    "blockDepth",
    "aRow",
    "aColumn",
    "aOffsets",
    "packedBOffsets",
    "outOffsets",
    "outRow",
    "adds",
  ]);
  const { batch, row: rowStart, rowEnd, column: columnStart, columnEnd } = printPlace(f, f.param(1).get);
  const tileHeight = f.let("i32", sub(rowEnd.get, rowStart.get));
  f.if(op("i32.eqz", tileHeight.get), () => f.emit(op("return")));
  const a = f.let("i32", add(add(words.a.get, tableEntry(words.aOffsets, batch.get)), mul(rowStart.get, words.aRow.get)));
  const packedB = f.let("i32", add(words.packedB.get, tableEntry(words.packedBOffsets, batch.get)));
  const out = f.let("i32", add(words.out.get, tableEntry(words.outOffsets, batch.get)));
  const depthStart = f.let("i32", i32(0));
  f.loop((nextBlock) => {
    const depth = minimum(f, words.blockDepth.get, sub(words.k.get, depthStart.get));
    const row = f.local("i32");
    const isLater = f.let("i32", op("i32.or", depthStart.get, words.adds.get));
    const from = add(a.get, mul(depthStart.get, words.aColumn.get));
    const to = f.let("i32", scratch.get);
    packPanels(f, height, { dtype, from, laneStride: words.aRow, depthStride: words.aColumn, lanes: tileHeight, depth }, to);
    const column = f.let("i32", columnStart.get);
    f.while(column, columnEnd.get, i32(panelWidth), () => {
      const panel = f.let(
        "i32",
        add(packedB.get, op("i32.shl", add(mul(column.get, words.k.get), mul(depthStart.get, i32(panelWidth))), i32(2))),
      );
      const columns = minimum(f, i32(panelWidth), sub(columnEnd.get, column.get));
      f.for(row, tileHeight.get, i32(height), () => {
        const rows = minimum(f, i32(height), sub(tileHeight.get, row.get));
        const target = f.let(
          "i32",
          add(add(out.get, mul(add(rowStart.get, row.get), words.outRow.get)), op("i32.shl", column.get, i32(2))),
        );
        const aPanel = f.let("i32", add(scratch.get, mul(mul(row.get, depth.get), i32(4))));
        const multiply = (to: Code, toRow: Code, adds: Code): Code => call(registerTile, aPanel.get, panel.get, depth.get, to, toRow, adds);
        f.if(
          op("i32.and", op("i32.eq", rows.get, i32(height)), op("i32.eq", columns.get, i32(panelWidth))),
          () => f.emit(multiply(target.get, words.outRow.get, isLater.get)),
          () => {
            const from = f.let("i32", add(scratch.get, i32(maxBlockBytes)));
            f.emit(multiply(from.get, i32(panelWidth * 4), i32(0)));
            storeEdge(f, from, target, words.outRow, isLater, rows, columns);
          },
        );
      });
    });
    f.emit(depthStart.set(add(depthStart.get, words.blockDepth.get)));
    f.brIf(nextBlock, op("i32.lt_u", depthStart.get, words.k.get));
  });
}

/**
 * How the inner loop of each register tile is written. Twelve sums, two vectors of b and one of a are the 15 registers that V8 hands out; it
 * emits all loads of a basic block first, so that a block may load no more than one vector of a. A branch that is never taken ends a block.
 * Such a tile reaches 98 % of the multiply-adds that registers alone come to, where two steps of k share a turn of the loop.
 */
const loops: Record<PanelHeight, { readonly stepsOfTurn: number; readonly endsBlocks: boolean }> = {
  4: { stepsOfTurn: 1, endsBlocks: false },
  6: { stepsOfTurn: 2, endsBlocks: true },
};

/**
 * Writes the function that all time is spent in: out[i][j] = Σ_k a[k][i] · b[k][j] of two panels, or out[i][j] += …. A function of its own
 * has the processor's registers to itself.
 */
function printRegisterTile(module: ModuleBuilder, height: PanelHeight): number {
  const f = module.function(["i32", "i32", "i32", "i32", "i32", "i32"], []);
  const [a, b, depth, out, outRow, adds] = f.params as readonly [Local, Local, Local, Local, Local, Local];
  const { stepsOfTurn, endsBlocks } = loops[height];
  const columns = panelWidth / 4;
  const acc = Array.from({ length: height }, () => Array.from({ length: columns }, () => f.let("v128", f32x4(0))));
  const bs = Array.from({ length: columns }, () => f.local("v128"));
  const splat = f.local("v128");
  f.block((exit) => {
    let branches = 0;
    /** Ends a basic block. Panels begin far above the addresses compared with; V8 would drop a second branch on the same one. */
    const endBlock = (): void => {
      if (endsBlocks) f.brIf(exit, op("i32.eq", b.get, i32(branches++)));
    };
    const turn = (steps: number): void => {
      for (let step = 0; step < steps; step++) {
        for (const [j, local] of bs.entries()) f.emit(local.set(memory("v128.load", (step * columns + j) * 16, b.get)));
        for (const [i, sums] of acc.entries()) {
          f.emit(splat.set(memory("v128.load32_splat", (step * height + i) * 4, a.get)));
          for (const [j, sum] of sums.entries()) f.emit(sum.set(f.multiplyAdd(splat.get, (bs[j] as Local).get, sum.get)));
          if (i < height - 1 || step < steps - 1) endBlock();
        }
      }
      f.emit(a.set(add(a.get, i32(steps * height * 4))));
    };
    const inTurns = op("i32.and", depth.get, i32(-stepsOfTurn));
    const end = f.let("i32", add(b.get, mul(inTurns, i32(panelWidth * 4))));
    f.while(b, end.get, i32(stepsOfTurn * panelWidth * 4), () => turn(stepsOfTurn));
    if (stepsOfTurn > 1) f.if(op("i32.and", depth.get, i32(stepsOfTurn - 1)), () => turn(1));
  });
  const write = (value: (sum: Local, offset: number) => Code): void => {
    for (const sums of acc) {
      for (const [j, sum] of sums.entries()) f.emit(memory("v128.store", j * 16, out.get, value(sum, j * 16)));
      f.emit(out.set(add(out.get, outRow.get)));
    }
  };
  f.if(
    adds.get,
    () => write((sum, offset) => op("f32x4.add", memory("v128.load", offset, out.get), sum.get)),
    () => write((sum) => sum.get),
  );
  return f.index;
}

/** Writes the part of a register tile that lies inside `out`. */
export function storeEdge(
  f: FunctionBuilder,
  from: Local,
  target: Local,
  outRow: Local,
  isLater: Local,
  rows: Local,
  columns: Local,
): void {
  const row = f.local("i32");
  const column = f.local("i32");
  const inVectors = f.let("i32", op("i32.and", columns.get, i32(-4)));
  f.for(row, rows.get, i32(1), () => {
    const source = f.let("i32", from.get);
    const to = f.let("i32", target.get);
    const move = (lanes: 4 | 1): void => {
      const [type, load, store, plus] =
        lanes === 4 ? (["v128", "v128.load", "v128.store", "f32x4.add"] as const) : (["f32", "f32.load", "f32.store", "f32.add"] as const);
      const sum = f.let(type, memory(load, 0, source.get));
      f.if(isLater.get, () => f.emit(sum.set(op(plus, memory(load, 0, to.get), sum.get))));
      f.emit(memory(store, 0, to.get, sum.get));
      f.emit(source.set(add(source.get, i32(lanes * 4))));
      f.emit(to.set(add(to.get, i32(lanes * 4))));
    };
    f.for(column, inVectors.get, i32(4), () => move(4));
    f.while(column, columns.get, i32(1), () => move(1));
    f.emit(from.set(add(from.get, i32(panelWidth * 4))));
    f.emit(target.set(add(target.get, outRow.get)));
  });
}
