import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import {
  type Code,
  extractLane,
  type FunctionBuilder,
  f32,
  f32x4,
  i32,
  type Local,
  type ModuleBuilder,
  memory,
  op,
  shuffle32,
} from "./assembler.js";
import { kernelParams } from "./loop.js";
import { loadScalar, loadVector } from "./storage.js";

/**
 * Matrix product by packed panels (Goto & van de Geijn 2008). One step packs `b` into panels of `panelWidth` columns, k after k, widened
 * to f32; the next computes tiles of `out`, packing its rows of `a` into panels of `panelHeight` as it goes. The functions serve every
 * shape: sizes and strides are arguments.
 */
export const panelHeight = 4;
export const panelWidth = 8;
/** Depth of a block of k: a panel of b (8 KiB) then stays in the first-level cache. */
export const blockDepth = 256;
/** Rows of a tile at most: a block of a (64 KiB) then stays in the second-level cache. */
export const maxTileRows = 64;

/** The arguments of both functions: 32-bit words, addresses and strides in bytes. */
export const matmulWords = [
  "a",
  "b",
  "out",
  "packed",
  /** Addresses of m and of k: steps before may have counted them. */
  "m",
  "n",
  "k",
  "aRow",
  "aColumn",
  "bRow",
  "bColumn",
  /** Tables of the byte offsets of each batch's matrices. */
  "aOffsets",
  "bOffsets",
  "packedOffsets",
  "outOffsets",
  /** Bytes between the rows of out. */
  "outRow",
  /** Tiles of one batch, along the rows and in all; rows and columns (whole panels) of a tile. */
  "rowTiles",
  "tiles",
  "tileRows",
  "tileColumns",
  /** Panels of b per tile of the packing step, and tiles per matrix. */
  "packPanels",
  "packTiles",
  /** 1 where the product is added to what `out` holds. */
  "adds",
  /** The f32 by which the step that packs b multiplies it, where there is such a factor. */
  "factor",
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

export const add = (a: Code, b: Code): Code => op("i32.add", a, b);
export const sub = (a: Code, b: Code): Code => op("i32.sub", a, b);
export const mul = (a: Code, b: Code): Code => op("i32.mul", a, b);

export function minimum(f: FunctionBuilder, a: Code, b: Code): Local {
  const x = f.let("i32", a);
  const y = f.let("i32", b);
  return f.let("i32", [x.get, y.get, op("i32.lt_u", x.get, y.get), op("select")]);
}

export function tableEntry(table: Local, index: Code): Code {
  return memory("i32.load", 0, add(table.get, op("i32.shl", index, i32(2))));
}

/** Transposes four vectors. */
export function transpose(f: FunctionBuilder, rows: readonly [Local, Local, Local, Local]): readonly [Local, Local, Local, Local] {
  const [a, b, c, d] = rows;
  const lowAb = f.let("v128", shuffle32(a.get, b.get, [0, 4, 1, 5]));
  const highAb = f.let("v128", shuffle32(a.get, b.get, [2, 6, 3, 7]));
  const lowCd = f.let("v128", shuffle32(c.get, d.get, [0, 4, 1, 5]));
  const highCd = f.let("v128", shuffle32(c.get, d.get, [2, 6, 3, 7]));
  return [
    f.let("v128", shuffle32(lowAb.get, lowCd.get, [0, 1, 4, 5])),
    f.let("v128", shuffle32(lowAb.get, lowCd.get, [2, 3, 6, 7])),
    f.let("v128", shuffle32(highAb.get, highCd.get, [0, 1, 4, 5])),
    f.let("v128", shuffle32(highAb.get, highCd.get, [2, 3, 6, 7])),
  ];
}

interface PanelSource {
  readonly dtype: DType;
  /** Address of the panel's first element. */
  readonly from: Code;
  /** Bytes from lane to lane of the panel (rows of a, columns of b), and from k to k. */
  readonly laneStride: Local;
  readonly depthStride: Local;
  /** How many lanes of the panel exist; the rest become zero. */
  readonly lanes: Local;
  readonly depth: Local;
  /** Four times the number by which all elements are multiplied. */
  readonly factor?: Local;
}

/** Packs one panel of `width` lanes: to[k][lane] = from[lane, k]. Advances `to` past it. */
export function packPanel(f: FunctionBuilder, width: number, source: PanelSource, to: Local): void {
  const { dtype, laneStride, depthStride, lanes, depth, factor } = source;
  const scaled = (value: Code): Code => (factor ? op("f32x4.mul", value, factor.get) : value);
  const bytes = dtypeBytes[dtype];
  const from = f.let("i32", source.from);
  const d = f.let("i32", i32(0));
  const vectors = width / 4;
  const isWhole = op("i32.eq", lanes.get, i32(width));
  const lanesTouch = op("i32.and", isWhole, op("i32.eq", laneStride.get, i32(bytes)));
  const depthTouches = op("i32.and", isWhole, op("i32.eq", depthStride.get, i32(bytes)));
  const advance = (steps: number): void => {
    f.emit(from.set(add(from.get, mul(depthStride.get, i32(steps)))));
    f.emit(to.set(add(to.get, i32(width * 4 * steps))));
  };
  f.if(
    lanesTouch,
    () => {
      f.while(d, depth.get, i32(1), () => {
        for (let v = 0; v < vectors; v++) {
          const value = f.let("v128", scaled(loadVector(f, dtype, from.get, v * 4 * bytes)));
          f.emit(memory("v128.store", v * 16, to.get, value.get));
        }
        advance(1);
      });
    },
    () => {
      f.if(depthTouches, () => {
        const whole = f.let("i32", op("i32.and", depth.get, i32(-4)));
        f.while(d, whole.get, i32(4), () => {
          const lane = f.let("i32", from.get);
          for (let v = 0; v < vectors; v++) {
            const read = (): Local => {
              const value = f.let("v128", scaled(loadVector(f, dtype, lane.get, 0)));
              f.emit(lane.set(add(lane.get, laneStride.get)));
              return value;
            };
            for (const [step, value] of transpose(f, [read(), read(), read(), read()]).entries()) {
              f.emit(memory("v128.store", (step * vectors + v) * 16, to.get, value.get));
            }
          }
          advance(4);
        });
      });
      // What is left: any stride, edges.
      f.while(d, depth.get, i32(1), () => {
        const lane = f.let("i32", i32(0));
        const at = f.let("i32", from.get);
        const target = f.let("i32", to.get);
        f.for(lane, lanes.get, i32(1), () => {
          const value = loadScalar(f, dtype, at.get);
          f.emit(memory("f32.store", 0, target.get, factor ? op("f32.mul", value, extractLane("f32", 0, factor.get)) : value));
          f.emit(at.set(add(at.get, laneStride.get)));
          f.emit(target.set(add(target.get, i32(4))));
        });
        f.while(lane, i32(width), i32(1), () => {
          f.emit(memory("f32.store", 0, target.get, f32(0)));
          f.emit(target.set(add(target.get, i32(4))));
        });
        advance(1);
      });
    },
  );
}

/** Lanes that `packPanels` takes at once where they touch: sixteen f32 are a cache line, which is then read once and not for each panel. */
const lineLanes = 16;

/** Packs the panel from `lane` on and advances `lane` past it; where lanes touch and enough are left, the panels of a whole line. */
function packPanels(f: FunctionBuilder, width: number, source: Omit<PanelSource, "lanes">, lane: Local, end: Local, to: Local): void {
  const from = f.let("i32", add(source.from, mul(lane.get, source.laneStride.get)));
  const left = f.let("i32", sub(end.get, lane.get));
  const touches = op("i32.eq", source.laneStride.get, i32(dtypeBytes[source.dtype]));
  f.if(
    op("i32.and", op("i32.ge_u", left.get, i32(lineLanes)), touches),
    () => {
      packLine(f, width, { ...source, from: from.get }, to);
      f.emit(lane.set(add(lane.get, i32(lineLanes))));
    },
    () => {
      packPanel(f, width, { ...source, from: from.get, lanes: minimum(f, left.get, i32(width)) }, to);
      f.emit(lane.set(add(lane.get, i32(width))));
    },
  );
}

/** Packs `lineLanes` lanes that touch as panels of `width`. Advances `to` past them. */
function packLine(
  f: FunctionBuilder,
  width: number,
  { dtype, from, depthStride, depth, factor }: Omit<PanelSource, "lanes">,
  to: Local,
): void {
  const panelBytes = f.let("i32", mul(depth.get, i32(width * 4)));
  const panels = lineLanes / width;
  const at = f.let("i32", from);
  const targets = [to];
  for (let i = 1; i < panels; i++) targets.push(f.let("i32", add((targets[i - 1] as Local).get, panelBytes.get)));
  const end = f.let("i32", add(to.get, panelBytes.get));
  f.while(to, end.get, i32(width * 4), () => {
    const values = Array.from({ length: lineLanes / 4 }, (_, v) => {
      const value = loadVector(f, dtype, at.get, v * 4 * dtypeBytes[dtype]);
      return f.let("v128", factor ? op("f32x4.mul", value, factor.get) : value);
    });
    for (const [v, value] of values.entries()) {
      const target = targets[Math.floor((v * 4) / width)] as Local;
      f.emit(memory("v128.store", (v * 16) % (width * 4), target.get, value.get));
    }
    f.emit(at.set(add(at.get, depthStride.get)));
    for (const target of targets.slice(1)) f.emit(target.set(add(target.get, i32(width * 4))));
  });
  f.emit(to.set((targets.at(-1) as Local).get));
}

/** Packs some panels of one matrix of b, times a factor where `isScaled`. Panels lie one after another, each [k][panelWidth]. */
export function printPackB(module: ModuleBuilder, dtype: DType, isScaled: boolean, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const words = readWords(f, ["b", "packed", "n", "k", "bRow", "bColumn", "bOffsets", "packedOffsets", "packPanels", "packTiles"]);
  const batch = f.let("i32", op("i32.div_u", f.param(1).get, words.packTiles.get));
  const first = f.let("i32", mul(op("i32.rem_u", f.param(1).get, words.packTiles.get), mul(words.packPanels.get, i32(panelWidth))));
  const end = minimum(f, words.n.get, add(first.get, mul(words.packPanels.get, i32(panelWidth))));
  const source = f.let("i32", add(words.b.get, tableEntry(words.bOffsets, batch.get)));
  const base = f.let("i32", add(words.packed.get, tableEntry(words.packedOffsets, batch.get)));
  const to = f.let("i32", add(base.get, mul(mul(first.get, words.k.get), i32(4))));
  const factor = isScaled ? f.let("v128", memory("v128.load32_splat", matmulWords.indexOf("factor") * 4, f.param(0).get)) : null;
  const column = f.let("i32", first.get);
  const panels = {
    dtype,
    from: source.get,
    laneStride: words.bColumn,
    depthStride: words.bRow,
    depth: words.k,
    ...(factor && { factor }),
  };
  f.while(column, end.get, i32(0), () => packPanels(f, panelWidth, panels, column, end, to));
}

/** Computes one tile of out. Scratch memory of the thread: the packed block of a, then one register tile. */
export function printMatmul(module: ModuleBuilder, dtype: DType, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const scratch = f.param(2);
  const edge = maxTileRows * blockDepth * 4;
  const words = readWords(f, [
    "a",
    "out",
    "packed",
    "m",
    "n",
    "k",
    "aRow",
    "aColumn",
    "aOffsets",
    "packedOffsets",
    "outOffsets",
    "outRow",
    "rowTiles",
    "tiles",
    "tileRows",
    "tileColumns",
    "adds",
  ]);
  const batch = f.let("i32", op("i32.div_u", f.param(1).get, words.tiles.get));
  const tile = f.let("i32", op("i32.rem_u", f.param(1).get, words.tiles.get));
  const rowStart = f.let("i32", mul(op("i32.rem_u", tile.get, words.rowTiles.get), words.tileRows.get));
  // Fewer rows may be counted than there are tiles for.
  f.if(op("i32.ge_u", rowStart.get, words.m.get), () => f.emit(op("return")));
  const columnStart = f.let("i32", mul(op("i32.div_u", tile.get, words.rowTiles.get), words.tileColumns.get));
  const rowEnd = minimum(f, words.m.get, add(rowStart.get, words.tileRows.get));
  const columnEnd = minimum(f, words.n.get, add(columnStart.get, words.tileColumns.get));
  const a = f.let("i32", add(add(words.a.get, tableEntry(words.aOffsets, batch.get)), mul(rowStart.get, words.aRow.get)));
  const packed = f.let("i32", add(words.packed.get, tableEntry(words.packedOffsets, batch.get)));
  const out = f.let("i32", add(words.out.get, tableEntry(words.outOffsets, batch.get)));
  const tileHeight = f.let("i32", sub(rowEnd.get, rowStart.get));
  const depthStart = f.let("i32", i32(0));
  const acc = Array.from({ length: panelHeight * 2 }, () => f.local("v128"));
  f.loop((nextBlock) => {
    const depth = minimum(f, i32(blockDepth), sub(words.k.get, depthStart.get));
    const to = f.let("i32", scratch.get);
    const row = f.local("i32");
    const isLater = f.let("i32", op("i32.or", depthStart.get, words.adds.get));
    const from = f.let("i32", add(a.get, mul(depthStart.get, words.aColumn.get)));
    const panels = { dtype, from: from.get, laneStride: words.aRow, depthStride: words.aColumn, depth };
    f.for(row, tileHeight.get, i32(0), () => packPanels(f, panelHeight, panels, row, tileHeight, to));
    const column = f.let("i32", columnStart.get);
    f.while(column, columnEnd.get, i32(panelWidth), () => {
      const panel = f.let(
        "i32",
        add(packed.get, op("i32.shl", add(mul(column.get, words.k.get), mul(depthStart.get, i32(panelWidth))), i32(2))),
      );
      const columns = minimum(f, i32(panelWidth), sub(columnEnd.get, column.get));
      f.for(row, tileHeight.get, i32(panelHeight), () => {
        const rows = minimum(f, i32(panelHeight), sub(tileHeight.get, row.get));
        const target = f.let(
          "i32",
          add(add(out.get, mul(add(rowStart.get, row.get), words.outRow.get)), op("i32.shl", column.get, i32(2))),
        );
        const isWhole = op("i32.and", op("i32.eq", rows.get, i32(panelHeight)), op("i32.eq", columns.get, i32(panelWidth)));
        multiplyPanels(f, add(scratch.get, mul(mul(row.get, depth.get), i32(4))), panel.get, depth.get, acc);
        f.if(
          isWhole,
          () => storeTile(f, acc, target, words.outRow, isLater),
          () => {
            storeEdge(f, acc, target, words.outRow, isLater, rows, columns, add(scratch.get, i32(edge)));
          },
        );
      });
    });
    f.emit(depthStart.set(add(depthStart.get, i32(blockDepth))));
    f.brIf(nextBlock, op("i32.lt_u", depthStart.get, words.k.get));
  });
}

/** acc[i][j] = Σ_k a[k][i] · b[k][4 j …]: the inner loop of it all. */
function multiplyPanels(f: FunctionBuilder, aPanel: Code, bPanel: Code, depth: Code, acc: readonly Local[]): void {
  const a = f.let("i32", aPanel);
  const b = f.let("i32", bPanel);
  const end = f.let("i32", add(b.get, mul(depth, i32(panelWidth * 4))));
  for (const local of acc) f.emit(local.set(f32x4(0)));
  const columns = panelWidth / 4;
  const bs = Array.from({ length: columns }, () => f.local("v128"));
  const splat = f.local("v128");
  f.while(b, end.get, i32(panelWidth * 4), () => {
    for (const [j, local] of bs.entries()) f.emit(local.set(memory("v128.load", j * 16, b.get)));
    for (let i = 0; i < panelHeight; i++) {
      f.emit(splat.set(memory("v128.load32_splat", i * 4, a.get)));
      for (const [j, local] of bs.entries()) {
        const sum = acc[i * columns + j] as Local;
        f.emit(sum.set(f.multiplyAdd(splat.get, local.get, sum.get)));
      }
    }
    f.emit(a.set(add(a.get, i32(panelHeight * 4))));
  });
}

/** Writes a register tile, or adds it to what is there: blocks of k after the first do. */
function storeTile(f: FunctionBuilder, acc: readonly Local[], target: Local, outRow: Local, isLater: Local): void {
  const columns = panelWidth / 4;
  const write = (isFirst: boolean): void => {
    const at = f.let("i32", target.get);
    for (let i = 0; i < panelHeight; i++) {
      for (let j = 0; j < columns; j++) {
        const sum = (acc[i * columns + j] as Local).get;
        const value = isFirst ? sum : op("f32x4.add", memory("v128.load", j * 16, at.get), sum);
        f.emit(memory("v128.store", j * 16, at.get, value));
      }
      f.emit(at.set(add(at.get, outRow.get)));
    }
  };
  f.if(
    isLater.get,
    () => write(false),
    () => write(true),
  );
}

/** Writes the part of a register tile that lies inside `out`, by way of scratch memory. */
function storeEdge(
  f: FunctionBuilder,
  acc: readonly Local[],
  target: Local,
  outRow: Local,
  isLater: Local,
  rows: Local,
  columns: Local,
  scratch: Code,
): void {
  const from = f.let("i32", scratch);
  for (const [i, local] of acc.entries()) f.emit(memory("v128.store", i * 16, from.get, local.get));
  const at = f.let("i32", target.get);
  const row = f.local("i32");
  const column = f.local("i32");
  f.for(row, rows.get, i32(1), () => {
    f.for(column, columns.get, i32(1), () => {
      const offset = f.let("i32", op("i32.shl", column.get, i32(2)));
      const sum = memory("f32.load", 0, add(from.get, offset.get));
      const before = [f32(0), memory("f32.load", 0, add(at.get, offset.get)), op("i32.eqz", isLater.get), op("select")];
      f.emit(memory("f32.store", 0, add(at.get, offset.get), op("f32.add", sum, before)));
    });
    f.emit(from.set(add(from.get, i32(panelWidth * 4))));
    f.emit(at.set(add(at.get, outRow.get)));
  });
}
