import { type Code, extractLane, type FunctionBuilder, f32x4, i32, type Local, memory, op } from "./assembler.js";
import { transpose } from "./pack.js";

/**
 * What both directions of attention are made of. Queries are taken in panels of eight, one a lane of two vectors, so that the softmax of
 * each is arithmetic between vectors and no sum runs across lanes. Keys are taken by fours, whose elements are broadcast.
 */
export const panelQueries = 8;
export const groupKeys = 4;
/** Two vectors hold a panel's row. */
export const rowBytes: number = panelQueries * 4;

export const add = (a: Code, b: Code): Code => op("i32.add", a, b);
export const sub = (a: Code, b: Code): Code => op("i32.sub", a, b);
export const mul = (a: Code, b: Code): Code => op("i32.mul", a, b);
export const words = (count: Code): Code => op("i32.shl", count, i32(2));

/** Reads named 32-bit arguments of a step, which lie in the order of `all`. */
export function readWords<Name extends string>(f: FunctionBuilder, all: readonly Name[], names: readonly Name[]): Record<Name, Local> {
  const read = (name: Name): Local => f.let("i32", memory("i32.load", all.indexOf(name) * 4, f.param(0).get));
  return Object.fromEntries(names.map((name) => [name, read(name)])) as Record<Name, Local>;
}

export function tableEntry(table: Local, index: Code): Code {
  return memory("i32.load", 0, add(table.get, words(index)));
}

/** The smaller of two signed numbers. */
export function least(f: FunctionBuilder, a: Code, b: Code): Local {
  const x = f.let("i32", a);
  const y = f.let("i32", b);
  return f.let("i32", [x.get, y.get, op("i32.lt_s", x.get, y.get), op("select")]);
}

/** A signed number, or 0 if it is negative. */
export function positive(f: FunctionBuilder, a: Code): Local {
  const x = f.let("i32", a);
  return f.let("i32", [x.get, i32(0), op("i32.gt_s", x.get, i32(0)), op("select")]);
}

/** `count` rounded up to a multiple of a power of two. */
export function roundedUp(count: Code, step: number): Code {
  return op("i32.and", add(count, i32(step - 1)), i32(-step));
}

/** Two vectors side by side in memory. */
export function loadRow(address: Code, offset = 0): readonly [Code, Code] {
  return [memory("v128.load", offset, address), memory("v128.load", offset + 16, address)];
}

export function storeRow(f: FunctionBuilder, address: Local, row: readonly Code[], offset = 0): void {
  for (const [j, value] of row.entries()) f.emit(memory("v128.store", offset + j * 16, address.get, value));
}

/** The sums of a tile of four by eight, two vectors a row. */
export function tileLocals(f: FunctionBuilder): readonly Local[] {
  return Array.from({ length: groupKeys * 2 }, () => f.local("v128"));
}

export interface ProductOperands {
  /** Address of four numbers that are broadcast; bytes from one to the next, and from step to step. */
  readonly a: Code;
  readonly aLane: number;
  readonly aStep: number;
  /** Address of eight numbers; bytes from step to step. */
  readonly b: Code;
  readonly bStep: Code;
  readonly depth: Code;
}

/** tile[i][j] += Σ a[step][i] · b[step][j]: where nearly all time goes. */
export function product(f: FunctionBuilder, tile: readonly Local[], operands: ProductOperands): void {
  const a = f.let("i32", operands.a);
  const b = f.let("i32", operands.b);
  const end = f.let("i32", add(a.get, mul(operands.depth, i32(operands.aStep))));
  const row = [f.local("v128"), f.local("v128")];
  const splat = f.local("v128");
  f.while(a, end.get, i32(operands.aStep), () => {
    for (const [j, local] of row.entries()) f.emit(local.set(memory("v128.load", j * 16, b.get)));
    for (let i = 0; i < groupKeys; i++) {
      f.emit(splat.set(memory("v128.load32_splat", i * operands.aLane, a.get)));
      for (const [j, local] of row.entries()) {
        const sum = tile[i * 2 + j] as Local;
        f.emit(sum.set(f.multiplyAdd(splat.get, local.get, sum.get)));
      }
    }
    f.emit(b.set(add(b.get, operands.bStep)));
  });
}

/** Weights below 2^-64 are 0. */
const lowestExponent = -64;

/**
 * 2ˣ for x ≤ 127, by Cephes' polynomial (exp2f) on |x - round(x)| ≤ ½; 2 units in the last place. 0 below -64: no weight of a softmax
 * counts that is so small, but its products with gradients would be subnormal numbers, which processors multiply a hundred times more
 * slowly. NaN gives NaN.
 */
export function exp2(f: FunctionBuilder, argument: Code): Code {
  const x = f.let("v128", argument);
  // Adding 1.5 · 2^23 rounds to an integer, and leaves it in the low bits; shifted by 23, nothing else of the sum is left.
  const magic = 12582912;
  const rounded = f.let("v128", op("f32x4.add", x.get, f32x4(magic)));
  const r = f.let("v128", op("f32x4.sub", x.get, op("f32x4.sub", rounded.get, f32x4(magic))));
  const [first = 0, ...rest] = [
    1.5353361883195e-4, 1.339887440266574e-3, 9.61843735767464e-3, 5.550332471162809e-2, 2.402264791363012e-1, 6.931472028550421e-1, 1,
  ];
  const power = rest.reduce<Code>((sum, c) => f.multiplyAdd(sum, r.get, f32x4(c)), f32x4(first));
  const result = op("i32x4.add", power, op("i32x4.shl", rounded.get, i32(23)));
  return op("v128.andnot", result, op("f32x4.lt", x.get, f32x4(lowestExponent)));
}

/** Multiplies `count` rows of a panel. */
export function scalePanel(f: FunctionBuilder, panel: Code, count: Code, factors: readonly [Code, Code]): void {
  const at = f.let("i32", panel);
  const end = f.let("i32", add(at.get, mul(count, i32(rowBytes))));
  f.while(at, end.get, i32(rowBytes), () => {
    storeRow(
      f,
      at,
      loadRow(at.get).map((value, j) => op("f32x4.mul", value, factors[j] as Code)),
    );
  });
}

/** to[query][d] = panel[d][query] for the panel's queries that exist. */
export function storePanel(f: FunctionBuilder, panel: Local, dim: Local, queryCount: Local, to: Code, toRow: Local): void {
  const base = f.let("i32", to);
  const d = f.let("i32", i32(0));
  f.if(op("i32.ge_s", queryCount.get, i32(panelQueries)), () => {
    const whole = f.let("i32", op("i32.and", dim.get, i32(-4)));
    const from = f.let("i32", panel.get);
    f.while(d, whole.get, i32(4), () => {
      const target = f.let("i32", add(base.get, words(d.get)));
      for (const half of [0, 16]) {
        const read = (row: number): Local => f.let("v128", memory("v128.load", row * rowBytes + half, from.get));
        for (const row of transpose(f, [read(0), read(1), read(2), read(3)])) {
          f.emit(memory("v128.store", 0, target.get, row.get));
          f.emit(target.set(add(target.get, toRow.get)));
        }
      }
      f.emit(from.set(add(from.get, i32(4 * rowBytes))));
    });
  });
  const lanes = least(f, queryCount.get, i32(panelQueries));
  f.while(d, dim.get, i32(1), () => {
    const lane = f.local("i32");
    const target = f.let("i32", add(base.get, words(d.get)));
    const from = f.let("i32", add(panel.get, mul(d.get, i32(rowBytes))));
    f.for(lane, lanes.get, i32(1), () => {
      f.emit(memory("f32.store", 0, target.get, memory("f32.load", 0, add(from.get, words(lane.get)))));
      f.emit(target.set(add(target.get, toRow.get)));
    });
  });
}

/** The sum of a vector's lanes. */
export function laneSum(vector: Local): Code {
  const lane = (i: number): Code => extractLane("f32", i, vector.get);
  return op("f32.add", op("f32.add", lane(0), lane(1)), op("f32.add", lane(2), lane(3)));
}
