import { type Code, f32, f32x4, i32, i32x4, type Local, laneMemory, type ModuleBuilder, memory, op } from "./assembler.js";
import { kernelParams } from "./loop.js";
import { add, mul, sub, transpose } from "./pack.js";
import { mostSixteen, overLanes, type RowsView, roundingBase } from "./sixteen-bits.js";

/** Rows of a panel of integers. */
export const integerRowsOfPanel = 4;

/**
 * Rows of f32 as panels of integers of 16 bits. A block of the depth is units of sixteen lanes; the units of a group share a factor of the other
 * operand, and two of them make sixteen pairs, which one instruction multiplies and adds up. A panel is, pair after pair, four rows' pairs.
 */
export interface IntegerPanels {
  readonly blocks: number;
  /** The units of each group, an even number and equally many. */
  readonly groups: readonly (readonly number[])[];
  /** For each unit where in the block its lane 0 is, and how far apart its lanes are. */
  readonly firsts: readonly number[];
  readonly step: number;
  /** Whether sums of f32 are needed, too, of each group. */
  readonly hasSums: boolean;
}

/** Pairs of the depth that share a factor. */
export function pairsOfGroup({ groups }: Pick<IntegerPanels, "groups">): number {
  return (groups[0]?.length ?? 0) * 8;
}

/** Bytes of what is made of the rows, and where each part begins: their integers, the scale of each row and group, and sums of f32. */
export function integerPanelPlaces(
  spec: IntegerPanels,
  rows: number,
): {
  readonly scales: number;
  readonly sums: number;
  readonly bytes: number;
} {
  const groups = Math.ceil(rows / integerRowsOfPanel) * spec.blocks * spec.groups.length;
  const scales = groups * pairsOfGroup(spec) * integerRowsOfPanel * 4;
  const sums = scales + groups * integerRowsOfPanel * 4;
  return { scales, sums, bytes: sums + (spec.hasSums ? groups * integerRowsOfPanel * 4 : 0) };
}

/** Words of the arguments: the rows, where what is made of them goes, and how many there are. */
export const integerPanelWords = ["rows", "integers", "scales", "sums", "count"] as const;

/** Writes the function that makes one panel; below the last row it repeats that one. */
export function printIntegerPanels(module: ModuleBuilder, spec: IntegerPanels, view: RowsView, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const panel = f.param(1);
  const [rows, integers, scales, sums, count] = integerPanelWords.map((_, i) =>
    f.let("i32", memory("i32.load", i * 4, f.param(0).get)),
  ) as [Local, Local, Local, Local, Local];
  const { blocks, groups, hasSums } = spec;
  const last = f.let("i32", sub(count.get, i32(1)));
  const elements = groups.reduce((sum, units) => sum + units.length * 16, 0);
  const groupBytes = integerRowsOfPanel * 4;
  const first = f.let("i32", mul(panel.get, i32(integerRowsOfPanel)));
  const sources = Array.from({ length: integerRowsOfPanel }, (_, r) => {
    const row = f.let("i32", add(first.get, i32(r)));
    const inside = [row.get, last.get, op("i32.lt_u", row.get, last.get), op("select")];
    return f.let("i32", add(add(rows.get, i32(view.offset * 4)), mul(inside, i32(view.rowStride * 4))));
  });
  const start = f.let("i32", mul(panel.get, i32(blocks * groups.length)));
  const to = f.let("i32", add(integers.get, mul(start.get, i32(pairsOfGroup(spec) * groupBytes))));
  const scalesTo = f.let("i32", add(scales.get, mul(start.get, i32(groupBytes))));
  const sumsTo = f.let("i32", add(sums.get, mul(start.get, i32(groupBytes))));
  const block = f.local("i32");
  f.for(block, i32(blocks), i32(1), () => {
    const readers = sources.map((at) => new RowReader(spec, view, at));
    const factors = readers.map((reader, r) => {
      const largest = f.let("v128", f32x4(0));
      for (const unit of groups.flat())
        for (const four of fours) f.emit(largest.set(op("f32x4.max", largest.get, op("f32x4.abs", reader.four(unit, four)))));
      const magnitude = f.let("f32", overLanes(f, largest.get, "f32.max"));
      const scale = f.let("f32", op("f32.mul", magnitude.get, f32(1 / mostSixteen)));
      for (const g of groups.keys()) f.emit(memory("f32.store", g * groupBytes + r * 4, scalesTo.get, scale.get));
      const isZero = op("f32.eq", magnitude.get, f32(0));
      return f.let("v128", op("f32x4.splat", [f32(0), op("f32.div", f32(mostSixteen), magnitude.get), isZero, op("select")]));
    });
    for (const [g, units] of groups.entries()) {
      for (let pair = 0; pair < units.length; pair += 2) {
        for (const four of fours) {
          const words = readers.map((reader, r) => {
            const [low, high] = [0, 1].map((half) => {
              const value = reader.four(units[pair + half] as number, four); // an even number of units
              return op("f32x4.add", op("f32x4.mul", value, (factors[r] as Local).get), f32x4(roundingBase)); // one a row
            }) as [Code, Code];
            return f.let("v128", op("v128.or", op("v128.and", low, i32x4(0xffff)), op("i32x4.shl", high, i32(16))));
          }) as [Local, Local, Local, Local];
          for (const [i, column] of transpose(f, words).entries())
            f.emit(memory("v128.store", (g * units.length * 8 + pair * 8 + four * 4 + i) * integerRowsOfPanel * 4, to.get, column.get));
        }
      }
    }
    if (hasSums) {
      for (const [g, units] of groups.entries())
        for (const [r, reader] of readers.entries()) {
          const sum = f.let("v128", f32x4(0));
          for (const unit of units) for (const four of fours) f.emit(sum.set(op("f32x4.add", sum.get, reader.four(unit, four))));
          f.emit(memory("f32.store", g * groupBytes + r * 4, sumsTo.get, overLanes(f, sum.get, "f32.add")));
        }
      f.emit(sumsTo.set(add(sumsTo.get, i32(groups.length * groupBytes))));
    }
    for (const at of sources) f.emit(at.set(add(at.get, i32(elements * view.columnStride * 4))));
    f.emit(to.set(add(to.get, i32((elements / 2) * 4 * integerRowsOfPanel))));
    f.emit(scalesTo.set(add(scalesTo.get, i32(groups.length * groupBytes))));
  });
}

/** Lanes of a unit by fours, in order. */
const fours = [0, 1, 2, 3] as const;

/** Reads a row's elements of the block that begins at `at`. */
class RowReader {
  constructor(
    readonly spec: IntegerPanels,
    readonly view: RowsView,
    readonly at: Local,
  ) {}

  four(unit: number, four: 0 | 1 | 2 | 3): Code {
    const { firsts, step } = this.spec;
    const { columnStride } = this.view;
    const offset = (i: number): number => ((firsts[unit] ?? 0) + (four * 4 + i) * step) * columnStride * 4;
    if (step * columnStride === 1) return memory("v128.load", offset(0), this.at.get);
    return [0, 1, 2, 3].reduce<Code>(
      (vector, i) =>
        i === 0 ? memory("v128.load32_zero", offset(0), this.at.get) : laneMemory("v128.load32_lane", offset(i), i, this.at.get, vector),
      [],
    );
  }
}
