import { call, f32x4, i32, i32x4, type Local, type ModuleBuilder, memory, op } from "./assembler.js";
import { integerRowsOfPanel as height } from "./integer-panels.js";
import { kernelParams } from "./loop.js";
import { minimum, panelWidth, printPlace, readWords, storeEdge } from "./matmul.js";
import { add, mul, sub } from "./pack.js";

/** What a product of panels of integers is printed for: pairs of a group, and whether sums of the rows are multiplied, too. */
export interface IntegerProduct {
  readonly pairs: number;
  readonly hasSums: boolean;
}

const rowBytes = height * 4;
const columnBytes = panelWidth * 4;

/**
 * Computes one tile of out as `printMatmul` does, of panels of integers: `a` are those of all rows (`IntegerPanels`), `packedB` those of columns, of
 * which a pair are two integers of 16 bits, too. `k` counts groups, and `blockDepth` those that are taken before the next panel.
 *
 * Each group is added up exactly, in i32, and then times the scale of its row and the factor of its column to the f32 sums, which stay in `out`: the
 * registers are full of integers.
 */
export function printIntegerMatmul(module: ModuleBuilder, spec: IntegerProduct, name: string): void {
  const { pairs, hasSums } = spec;
  const tile = printIntegerTile(module, spec);
  const f = module.function([...kernelParams], [], name);
  const scratch = f.param(2);
  const words = readWords(f, [
    "a",
    "out",
    "packedB",
    "k",
    "blockDepth",
    "outOffsets",
    "outRow",
    "rowScales",
    "rowSums",
    "columnFactors",
    "columnShifts",
  ]);
  const { row: rowStart, rowEnd, column: columnStart, columnEnd } = printPlace(f, f.param(1).get);
  const out = f.let("i32", add(words.out.get, memory("i32.load", 0, words.outOffsets.get)));
  const from = f.let("i32", i32(0));
  const [row, column] = [f.local("i32"), f.local("i32")];
  f.while(from, words.k.get, words.blockDepth.get, () => {
    const count = minimum(f, words.blockDepth.get, sub(words.k.get, from.get));
    f.emit(column.set(columnStart.get));
    f.while(column, columnEnd.get, i32(panelWidth), () => {
      // Of panels of as many lanes as there are bytes of shift.
      const groupAt = f.let("i32", add(mul(op("i32.shr_u", column.get, i32(3)), words.k.get), from.get));
      const columns = minimum(f, i32(panelWidth), sub(columnEnd.get, column.get));
      f.emit(row.set(rowStart.get));
      f.while(row, rowEnd.get, i32(height), () => {
        const rowGroup = f.let("i32", add(mul(op("i32.shr_u", row.get, i32(2)), words.k.get), from.get));
        const rows = minimum(f, i32(height), sub(rowEnd.get, row.get));
        const target = f.let("i32", add(add(out.get, mul(row.get, words.outRow.get)), op("i32.shl", column.get, i32(2))));
        const multiply = (to: Local, toRow: ReturnType<typeof i32>, adds: ReturnType<typeof i32>): void =>
          f.emit(
            call(
              tile,
              add(words.a.get, mul(rowGroup.get, i32(pairs * rowBytes))),
              add(words.packedB.get, mul(groupAt.get, i32(pairs * columnBytes))),
              count.get,
              add(words.rowScales.get, mul(rowGroup.get, i32(rowBytes))),
              add(words.columnFactors.get, mul(groupAt.get, i32(columnBytes))),
              hasSums ? add(words.rowSums.get, mul(rowGroup.get, i32(rowBytes))) : i32(0),
              hasSums ? add(words.columnShifts.get, mul(groupAt.get, i32(columnBytes))) : i32(0),
              to.get,
              toRow,
              adds,
            ),
          );
        f.if(
          op("i32.and", op("i32.eq", rows.get, i32(height)), op("i32.eq", columns.get, i32(panelWidth))),
          () => multiply(target, words.outRow.get, from.get),
          () => {
            const at = f.let("i32", scratch.get);
            multiply(at, i32(columnBytes), i32(0));
            storeEdge(f, at, target, words.outRow, from, rows, columns);
          },
        );
      });
    });
  });
}

/**
 * Writes the function that all time is spent in. Eight sums, two vectors of b and one of a fit into the registers; a turn of one pair alone takes
 * half of the time of one of a whole group, for which V8 would load everything first.
 */
function printIntegerTile(module: ModuleBuilder, { pairs, hasSums }: IntegerProduct): number {
  const f = module.function(
    Array.from({ length: 10 }, () => "i32" as const),
    [],
  );
  const [a, b, groups, rowScales, factors, rowSums, shifts, out, outRow, adds] = f.params as readonly [
    Local,
    Local,
    Local,
    Local,
    Local,
    Local,
    Local,
    Local,
    Local,
    Local,
  ];
  const vectors = panelWidth / 4;
  const sums = Array.from({ length: height }, () => Array.from({ length: vectors }, () => f.local("v128")));
  const columns = Array.from({ length: vectors }, () => f.local("v128"));
  const splat = f.local("v128");
  const [group, pair, to] = [f.local("i32"), f.local("i32"), f.local("i32")];
  f.if(op("i32.eqz", adds.get), () => {
    f.emit(to.set(out.get));
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < vectors; j++) f.emit(memory("v128.store", j * 16, to.get, f32x4(0)));
      f.emit(to.set(add(to.get, outRow.get)));
    }
  });
  const load = (from: Local): void => {
    for (const [j, vector] of columns.entries()) f.emit(vector.set(memory("v128.load", j * 16, from.get)));
  };
  f.for(group, groups.get, i32(1), () => {
    for (const sum of sums.flat()) f.emit(sum.set(i32x4(0)));
    f.for(pair, i32(pairs), i32(1), () => {
      load(b);
      for (const [i, own] of sums.entries()) {
        f.emit(splat.set(memory("v128.load32_splat", i * 4, a.get)));
        for (const [j, sum] of own.entries())
          f.emit(sum.set(op("i32x4.add", op("i32x4.dot_i16x8_s", splat.get, (columns[j] as Local).get), sum.get))); // one a vector
      }
      f.emit(a.set(add(a.get, i32(rowBytes))));
      f.emit(b.set(add(b.get, i32(columnBytes))));
    });
    /** Adds `value` times a row's scale and what a column has, of each row, to out. */
    const addTo = (scales: Local, value: ((sum: Local) => ReturnType<typeof i32>) | null): void => {
      f.emit(to.set(out.get));
      for (const [i, own] of sums.entries()) {
        f.emit(splat.set(memory("v128.load32_splat", i * 4, scales.get)));
        for (const [j, sum] of own.entries()) {
          const times = op("f32x4.mul", splat.get, (columns[j] as Local).get); // one a vector
          const added = value ? op("f32x4.mul", value(sum), times) : times;
          f.emit(memory("v128.store", j * 16, to.get, op("f32x4.add", memory("v128.load", j * 16, to.get), added)));
        }
        f.emit(to.set(add(to.get, outRow.get)));
      }
      f.emit(scales.set(add(scales.get, i32(rowBytes))));
    };
    load(factors);
    addTo(rowScales, (sum) => op("f32x4.convert_i32x4_s", sum.get));
    f.emit(factors.set(add(factors.get, i32(columnBytes))));
    if (hasSums) {
      load(shifts);
      addTo(rowSums, null);
      f.emit(shifts.set(add(shifts.get, i32(columnBytes))));
    }
  });
  return f.index;
}
