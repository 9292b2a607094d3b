import { type Code, extractLane, f64, i32, type Local, ModuleBuilder, memory, op } from "./assembler.js";

/**
 * A module with `update(a, rowBytes, count, v, w, x, image)`: A ← A − v wᵀ − w vᵀ in f64, of the first `count` rows of a symmetric matrix up to the
 * diagonal, and image += A x over them, in one pass: an entry below the diagonal counts above it too. Matrix and vectors are byte addresses,
 * rows lie `rowBytes` apart, and `count` is even: rows are taken in pairs, and so are the numbers in them.
 */
export function doubleSymmetricModule(): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder({ isShared: false });
  const f = module.function(["i32", "i32", "i32", "i32", "i32", "i32", "i32"], [], "update");
  const [a, rowBytes, count] = [f.param(0), f.param(1), f.param(2)];
  const [v, w, x, image] = [f.param(3), f.param(4), f.param(5), f.param(6)];
  const end = f.let("i32", op("i32.shl", count.get, i32(3)));
  const [row, at] = [f.local("i32"), f.local("i32")];
  const starts = [f.local("i32"), f.local("i32")] as const;
  const [own, at0] = [f.local("i32"), f.local("i32")];
  /** Of either row: v, w and x of its own, in both lanes, and the sum of its product with x. */
  const rows = starts.map((start, i) => ({ start, i, v: f.local("v128"), w: f.local("v128"), x: f.local("v128"), sum: f.local("v128") }));
  const [vs, ws, xs, values, product] = [f.local("v128"), f.local("v128"), f.local("v128"), f.local("v128"), f.local("v128")];
  const times = (one: Local, other: Local): Code => op("f64x2.mul", one.get, other.get);
  const address = (base: Local): Code => op("i32.add", base.get, at.get);
  // `row` is a number of bytes from the start of a vector.
  f.for(row, end.get, i32(16), () => {
    f.emit(starts[0].set(op("i32.add", a.get, op("i32.mul", op("i32.shr_u", row.get, i32(3)), rowBytes.get))));
    f.emit(starts[1].set(op("i32.add", starts[0].get, rowBytes.get)));
    for (const [vector, name] of [
      [v, "v"],
      [w, "w"],
      [x, "x"],
    ] as const) {
      f.emit(own.set(op("i32.add", vector.get, row.get)));
      for (const each of rows) f.emit(each[name].set(op("f64x2.splat", memory("f64.load", 8 * each.i, own.get))));
    }
    for (const { sum } of rows) f.emit(sum.set(op("f64x2.splat", f64(0))));
    f.for(at, row.get, i32(16), () => {
      for (const [vector, base] of [
        [vs, v],
        [ws, w],
        [xs, x],
      ] as const)
        f.emit(vector.set(memory("v128.load", 0, address(base))));
      f.emit(product.set(memory("v128.load", 0, address(image))));
      for (const each of rows) {
        f.emit(at0.set(address(each.start)));
        const before = op("f64x2.sub", memory("v128.load", 0, at0.get), times(each.v, ws));
        f.emit(values.set(op("f64x2.sub", before, times(each.w, vs))));
        f.emit(memory("v128.store", 0, at0.get, values.get));
        f.emit(each.sum.set(op("f64x2.add", each.sum.get, times(values, xs))));
        f.emit(product.set(op("f64x2.add", product.get, times(values, each.x))));
      }
      f.emit(memory("v128.store", 0, address(image), product.get));
    });
    corner(row);
  });
  /** The three entries of a pair that are left: [row, row], [row + 1, row] and [row + 1, row + 1]. */
  function corner(first: Local): void {
    const number = (vector: Local): Code => extractLane("f64", 0, vector.get);
    const [values, ends] = [[] as Local[], starts.map((start) => f.let("i32", op("i32.add", start.get, first.get)))];
    for (const [i, j] of [
      [0, 0],
      [1, 0],
      [1, 1],
    ] as const) {
      const [one, other, place] = [rows[i], rows[j], ends[i]];
      if (!one || !other || !place) throw new Error("unreachable: rows come in pairs");
      const less = (value: Code, left: Local, right: Local): Code => op("f64.sub", value, op("f64.mul", number(left), number(right)));
      const value = f.let("f64", less(less(memory("f64.load", 8 * j, place.get), one.v, other.w), one.w, other.v));
      f.emit(memory("f64.store", 8 * j, place.get, value.get));
      values.push(value);
    }
    const [diagonal, below, next] = values as [Local, Local, Local];
    f.emit(own.set(op("i32.add", image.get, first.get)));
    for (const { i, sum } of rows) {
      const all = op("f64.add", extractLane("f64", 0, sum.get), extractLane("f64", 1, sum.get));
      const pair = i === 0 ? [diagonal, below] : [below, next];
      const products = rows.map((each, j) => op("f64.mul", (pair[j] as Local).get, number(each.x)));
      const total = products.reduce((sum, product) => op("f64.add", sum, product), op("f64.add", memory("f64.load", 8 * i, own.get), all));
      f.emit(memory("f64.store", 8 * i, own.get, total));
    }
  }
  return module.bytes();
}
