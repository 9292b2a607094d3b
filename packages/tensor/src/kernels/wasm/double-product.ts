import { extractLane, f64, i32, type Local, ModuleBuilder, memory, op } from "./assembler.js";

/** Rows and columns of a tile: nine sums of two lanes, and the four vectors that meet in them at a time, fit sixteen registers. */
export const tileSide = 3;

/** Entries of a row that a turn of the inner loop takes. */
export const depthStep = 4;

/**
 * A module with `multiply(a, b, c, rows, columns, depth)`: C [rows, columns] += A Bᵀ in f64, of A [rows, depth] and B [columns, depth], which lie at
 * byte addresses, row after row. Rows and columns are multiples of `tileSide`, and the depth is one of `depthStep` and not 0.
 */
export function doubleProductModule(): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder({ isShared: false });
  const f = module.function(["i32", "i32", "i32", "i32", "i32", "i32"], [], "multiply");
  const [a, b, c, rows, columns, depth] = [0, 1, 2, 3, 4, 5].map((index) => f.param(index)) as [Local, Local, Local, Local, Local, Local];
  const rowBytes = f.let("i32", op("i32.shl", depth.get, i32(3)));
  const resultBytes = f.let("i32", op("i32.shl", columns.get, i32(3)));
  const tileRows = Array.from({ length: tileSide }, (_, i) => i);
  const [row, column, at] = [f.local("i32"), f.local("i32"), f.local("i32")];
  const own = tileRows.map(() => f.local("i32"));
  const others = tileRows.map(() => f.local("i32"));
  const ownAt = tileRows.map(() => f.local("i32"));
  const othersAt = tileRows.map(() => f.local("i32"));
  const x = tileRows.map(() => f.local("v128"));
  const y = f.local("v128");
  const sums = tileRows.map(() => tileRows.map(() => f.local("v128")));
  const result = f.local("i32");
  const addressesOf = (locals: readonly Local[], start: Local, first: Local): void => {
    for (const [i, local] of locals.entries()) {
      const index = op("i32.add", first.get, i32(i));
      f.emit(local.set(op("i32.add", start.get, op("i32.mul", index, rowBytes.get))));
    }
  };
  f.for(row, rows.get, i32(tileSide), () => {
    addressesOf(own, a, row);
    f.for(column, columns.get, i32(tileSide), () => {
      addressesOf(others, b, column);
      for (const sum of sums.flat()) f.emit(sum.set(op("f64x2.splat", f64(0))));
      f.for(at, rowBytes.get, i32(8 * depthStep), () => {
        for (const [i, start] of own.entries()) f.emit((ownAt[i] as Local).set(op("i32.add", start.get, at.get)));
        for (const [j, start] of others.entries()) f.emit((othersAt[j] as Local).set(op("i32.add", start.get, at.get)));
        for (let offset = 0; offset < 8 * depthStep; offset += 16) {
          for (const [i, local] of x.entries()) f.emit(local.set(memory("v128.load", offset, (ownAt[i] as Local).get)));
          for (const [j, other] of othersAt.entries()) {
            f.emit(y.set(memory("v128.load", offset, other.get)));
            for (const [i, local] of x.entries()) {
              const sum = (sums[i] as Local[])[j] as Local;
              f.emit(sum.set(op("f64x2.add", sum.get, op("f64x2.mul", local.get, y.get))));
            }
          }
        }
      });
      for (const [i, inRow] of sums.entries()) {
        const start = op("i32.mul", op("i32.add", row.get, i32(i)), resultBytes.get);
        f.emit(result.set(op("i32.add", c.get, op("i32.add", start, op("i32.shl", column.get, i32(3))))));
        for (const [j, sum] of inRow.entries()) {
          const both = op("f64.add", extractLane("f64", 0, sum.get), extractLane("f64", 1, sum.get));
          f.emit(memory("f64.store", 8 * j, result.get, op("f64.add", memory("f64.load", 8 * j, result.get), both)));
        }
      }
    });
  });
  return module.bytes();
}
