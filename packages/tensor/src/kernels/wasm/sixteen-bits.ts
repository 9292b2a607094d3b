import {
  type Code,
  extractLane,
  type FunctionBuilder,
  f32,
  f32x4,
  i32,
  i32x4,
  type Local,
  laneMemory,
  type ModuleBuilder,
  memory,
  op,
  shuffle32,
} from "./assembler.js";
import { kernelParams } from "./loop.js";
import { add } from "./pack.js";

/** Bytes of sixteen integers. */
export const bytesOfUnit = 32;

/** How the other operand's integers are found: those in memory are widened as they are loaded, eight at a time. */
export type BytesKind = "unsigned" | "signed" | "signed in memory";

/** Units that share a factor, and the integer that is added to each of the other operand's. */
export interface IntegerGroup {
  readonly units: readonly number[];
  readonly offset: number;
}

/**
 * Rows of f32 as integers of 16 bits, block by block: the largest magnitude of a block is 32767 times its scale. A block is units of sixteen
 * positions, of which the even lanes come first, but those of bytes in memory in order.
 */
export interface SixteenBits {
  readonly m: number;
  readonly blocks: number;
  readonly units: number;
  /** For each unit where in the block its lane 0 is, and how far apart its lanes are. */
  readonly firsts: readonly number[];
  readonly step: number;
  readonly groups: readonly IntegerGroup[];
  readonly kinds: readonly BytesKind[];
  /** Whether sums of f32 are needed, too, of each group. */
  readonly hasSums: boolean;
}

/** How the rows lie in memory, in elements. */
export interface RowsView {
  readonly offset: number;
  readonly rowStride: number;
  readonly columnStride: number;
}

/** Bytes of what is made of the rows, and where each part begins: their integers, scales, sums from which groups start, and sums of f32. */
export function sixteenBitsPlaces({ m, blocks, units, groups, hasSums }: SixteenBits): {
  readonly integers: number;
  readonly scales: number;
  readonly starts: number;
  readonly sums: number;
  readonly bytes: number;
} {
  const rows = m * blocks;
  const starts = rows * units * bytesOfUnit;
  const scales = starts + rows * groups.filter(({ offset }) => offset !== 0).length * 16;
  const sums = scales + Math.ceil(rows / 4) * 16;
  return { integers: 0, starts, scales, sums, bytes: sums + (hasSums ? rows * groups.length * 4 : 0) };
}

/** Words of the arguments. */
export const sixteenBitsWords = ["rows", "integers", "scales", "starts", "sums"] as const;

/** Blocks that a tile takes, about a thousand positions. */
export function blocksOfTile({ units }: SixteenBits): number {
  return Math.max(1, Math.floor(1024 / (units * 16)));
}

/** The largest magnitude of an integer. */
export const mostSixteen = 32767;
/** Added to a small f32 it leaves the nearest integer in the last bits, of which the lower sixteen of the sum itself are 0. */
export const roundingBase: number = 1.5 * 2 ** 23;
const roundingBits = 0x4b400000;

/** Writes the function that makes some blocks of one row; tiles of a row follow one another. */
export function printSixteenBits(module: ModuleBuilder, spec: SixteenBits, view: RowsView, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const [source, integers, scales, starts, sums] = sixteenBitsWords.map((_, i) =>
    f.let("i32", memory("i32.load", i * 4, f.param(0).get)),
  ) as [Local, Local, Local, Local, Local];
  const { blocks, units, groups, hasSums } = spec;
  const perTile = blocksOfTile(spec);
  const tiles = Math.ceil(blocks / perTile);
  const row = f.let("i32", op("i32.div_u", f.param(1).get, i32(tiles)));
  const block = f.let("i32", op("i32.mul", op("i32.rem_u", f.param(1).get, i32(tiles)), i32(perTile)));
  const end = f.let("i32", add(block.get, i32(perTile)));
  f.if(op("i32.gt_u", end.get, i32(blocks)), () => f.emit(end.set(i32(blocks))));
  const elements = units * 16;
  const startCount = groups.filter(({ offset }) => offset !== 0).length;
  f.while(block, end.get, i32(1), () => {
    const number = f.let("i32", add(op("i32.mul", row.get, i32(blocks)), block.get));
    const place = (base: Local, bytes: number): Local => f.let("i32", add(base.get, op("i32.mul", number.get, i32(bytes))));
    const at = f.let(
      "i32",
      add(
        add(source.get, i32(view.offset * 4)),
        add(op("i32.mul", row.get, i32(view.rowStride * 4)), op("i32.mul", block.get, i32(elements * view.columnStride * 4))),
      ),
    );
    const reader = new BlockReader(f, spec, view, at);
    const largest = f.let("v128", f32x4(0));
    for (let unit = 0; unit < units; unit++)
      for (const four of fours) f.emit(largest.set(op("f32x4.max", largest.get, op("f32x4.abs", reader.four(unit, four)))));
    const magnitude = f.let("f32", overLanes(f, largest.get, "f32.max"));
    f.emit(memory("f32.store", 0, place(scales, 4).get, op("f32.mul", magnitude.get, f32(1 / mostSixteen))));
    const isZero = op("f32.eq", magnitude.get, f32(0));
    const factor = f.let("v128", op("f32x4.splat", [f32(0), op("f32.div", f32(mostSixteen), magnitude.get), isZero, op("select")]));
    const to = place(integers, units * bytesOfUnit);
    for (let unit = 0; unit < units; unit++) {
      const rounded = fours.map((four) => {
        const moved = op("f32x4.add", op("f32x4.mul", reader.four(unit, four), factor.get), f32x4(roundingBase));
        return f.let("v128", op("i32x4.sub", moved, i32x4(roundingBits)));
      }) as [Local, Local, Local, Local];
      for (const half of [0, 1] as const) {
        const narrow = op("i16x8.narrow_i32x4_s", rounded[(half * 2) as 0 | 2].get, rounded[(half * 2 + 1) as 1 | 3].get);
        f.emit(memory("v128.store", unit * bytesOfUnit + half * 16, to.get, narrow));
      }
    }
    const startsAt = startCount > 0 ? place(starts, startCount * 16) : null;
    let start = 0;
    for (const { units: own, offset } of groups) {
      if (!startsAt || offset === 0) continue;
      const sum = f.let("v128", i32x4(0));
      for (const unit of own)
        for (const half of [0, 16]) {
          const made = memory("v128.load", unit * bytesOfUnit + half, to.get);
          f.emit(sum.set(op("i32x4.add", sum.get, op("i32x4.dot_i16x8_s", made, i32x4(Math.imul(offset & 0xffff, 0x00010001))))));
        }
      f.emit(memory("v128.store", start++ * 16, startsAt.get, sum.get));
    }
    if (!hasSums) return;
    const sumsAt = place(sums, groups.length * 4);
    for (const [g, { units: own }] of groups.entries()) {
      const sum = f.let("v128", f32x4(0));
      for (const unit of own) for (const four of fours) f.emit(sum.set(op("f32x4.add", sum.get, reader.four(unit, four))));
      f.emit(memory("f32.store", g * 4, sumsAt.get, overLanes(f, sum.get, "f32.add")));
    }
  });
}

/** Lanes of a unit by fours, the even ones first. */
const fours = [0, 1, 2, 3] as const;

class BlockReader {
  constructor(
    readonly f: FunctionBuilder,
    readonly spec: SixteenBits,
    readonly view: RowsView,
    readonly at: Local,
  ) {}

  four(unit: number, four: 0 | 1 | 2 | 3): Code {
    const { firsts, step, kinds } = this.spec;
    const { columnStride } = this.view;
    const isInOrder = kinds[unit] === "signed in memory";
    const lane = (i: number): number => (isInOrder ? four * 4 + i : (four % 2) * 8 + i * 2 + (four < 2 ? 0 : 1));
    const offset = (i: number): number => ((firsts[unit] ?? 0) + lane(i) * step) * columnStride * 4;
    if (step * columnStride === 1 && isInOrder) return memory("v128.load", offset(0), this.at.get);
    if (step * columnStride === 1) {
      // Of eight neighbours the even or the odd ones.
      const eight = offset(0) - (four < 2 ? 0 : 4);
      const [low, high] = [memory("v128.load", eight, this.at.get), memory("v128.load", eight + 16, this.at.get)];
      return shuffle32(low, high, four < 2 ? [0, 2, 4, 6] : [1, 3, 5, 7]);
    }
    return [0, 1, 2, 3].reduce<Code>(
      (vector, i) =>
        i === 0 ? memory("v128.load32_zero", offset(0), this.at.get) : laneMemory("v128.load32_lane", offset(i), i, this.at.get, vector),
      [],
    );
  }
}

/** What the lanes of a vector of f32 come to. */
export function overLanes(f: FunctionBuilder, vector: Code, join: "f32.max" | "f32.add"): Code {
  const whole = f.let("v128", vector);
  const [a, b, c, d] = [0, 1, 2, 3].map((lane) => extractLane("f32", lane, whole.get)) as [Code, Code, Code, Code];
  return op(join, op(join, a, b), op(join, c, d));
}
