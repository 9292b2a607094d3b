import { type Expr, ExprMakers, type Index } from "../src/kernels/expr.js";
import type { LoopKernel, Reduction, Store } from "../src/kernels/kernel.js";
import { computeDType, type DType, decode, encode } from "../src/tensor/dtype.js";
import type { TestSlot } from "./cpu-plan.js";
import { interpret, type Rounding } from "./interpret.js";

/** A small deterministic generator. */
export class Random {
  constructor(private state: number) {}
  next(): number {
    this.state = (Math.imul(this.state, 1664525) + 1013904223) >>> 0;
    return this.state / 2 ** 32;
  }
  int(limit: number): number {
    return Math.floor(this.next() * limit);
  }
  pick<T>(items: readonly T[]): T {
    return items[this.int(items.length)] as T;
  }
}

const storedTypes = ["f32", "f16", "bf16", "i32", "u32", "u8", "bool"] as const;

function randomValues(random: Random, dtype: DType, count: number): number[] {
  const raw = Array.from({ length: count }, () => {
    switch (dtype) {
      case "i32":
        return random.int(2001) - 1000;
      case "u32":
        return random.int(1000);
      case "u8":
        return random.int(256);
      case "bool":
        return random.int(2);
      default:
        return (random.next() - 0.5) * 4;
    }
  });
  return Array.from(decode(encode(raw, dtype), dtype));
}

export interface LoopCase {
  readonly kernel: LoopKernel;
  readonly slots: TestSlot[];
  /** How many operations deep values are, for the tolerance. */
  readonly length: number;
}

/** A random kernel: strided, broadcast, transposed, gathered and padded loads of every type, arithmetic, reductions, several stores. */
export function randomLoop(seed: number): LoopCase {
  const random = new Random(seed);
  for (let i = 0; i < 5; i++) random.next();
  const makers = new ExprMakers();
  const sizes = Array.from({ length: 1 + random.int(3) }, () => random.pick([1, 2, 3, 4, 5, 7, 8, 13, 16, 17]));
  sizes.push(random.pick([1, 2, 3, 4, 5, 8, 11, 16, 29, 64, 67]));
  const outer = sizes.slice(0, -1);
  const inner = sizes.at(-1) ?? 1;
  const slots: TestSlot[] = [];
  const variables = sizes.map((size, axis) => makers.variable(axis, size));
  const newSlot = (dtype: DType, count: number): number => slots.push({ dtype, values: randomValues(random, dtype, count) }) - 1;

  const load = (axes: readonly number[]): Expr => {
    const dtype = random.pick(storedTypes);
    const used = axes.filter(() => random.int(4) > 0);
    const order = random.int(3) === 0 ? [...used].reverse() : used;
    let index: Index = makers.int(0);
    for (const axis of order) index = makers.add(makers.mul(index, makers.int(sizes[axis] ?? 1)), variables[axis] as Index);
    const count = order.reduce((all, axis) => all * (sizes[axis] ?? 1), 1);
    const style = random.int(9);
    if (style === 0) {
      // Flipped.
      return makers.load(computeDType(dtype), newSlot(dtype, count), makers.index("sub", makers.int(count - 1), index));
    }
    if (style === 1) {
      // Padded: clamped index, selected value.
      const shifted = makers.index("sub", index, makers.int(1));
      const clamped = makers.index("max", makers.index("min", shifted, makers.int(Math.max(0, count - 2))), makers.int(0));
      const value = makers.load(computeDType(dtype), newSlot(dtype, count), clamped);
      return makers.select(makers.binary("lt", shifted, makers.int(0)), makers.constant(value.dtype, 1), value);
    }
    if (style === 2) {
      // Gathered.
      const table = 6;
      const slot = slots.push({ dtype: "i32", values: Array.from({ length: count }, () => random.int(table)) }) - 1;
      return makers.load(computeDType(dtype), newSlot(dtype, table), makers.given(makers.load("i32", slot, index)));
    }
    if (style === 3) {
      // Halved, as a repeat.
      return makers.load(computeDType(dtype), newSlot(dtype, count), makers.index("div", index, makers.int(2)));
    }
    if (style === 4) {
      // A piece beside others: only part of the innermost variable's values see it.
      const axis = axes.at(-1) ?? 0;
      const size = sizes[axis] ?? 1;
      const before = random.int(size);
      const count = 1 + random.int(size - before);
      const shifted = makers.add(variables[axis] as Index, makers.int(-before));
      const clamped = makers.index("min", makers.index("max", shifted, makers.int(0)), makers.int(count - 1));
      const value = makers.load(computeDType(dtype), newSlot(dtype, count), clamped);
      const isFrom = makers.binary("le", makers.int(before), variables[axis] as Index);
      const isTo = makers.binary(random.pick(["lt", "le"] as const), variables[axis] as Index, makers.int(before + count - 1));
      return makers.select(makers.binary("and", isFrom, isTo), value, makers.constant(value.dtype, 0));
    }
    const offset = random.int(3);
    return makers.load(computeDType(dtype), newSlot(dtype, count + offset), makers.add(index, makers.int(offset)));
  };

  const asFloat = (x: Expr): Expr => makers.cast("f32", x);
  const value = (axes: readonly number[], depth: number, accumulators: number): Expr => {
    if (depth === 0) {
      if (accumulators > 0 && random.int(3) === 0) return makers.accumulator("f32", random.int(accumulators));
      return random.int(6) === 0 ? makers.constant("f32", random.next() * 2 - 1) : asFloat(load(axes));
    }
    const a = value(axes, depth - 1, accumulators);
    const b = value(axes, random.int(depth), accumulators);
    switch (random.int(10)) {
      case 0:
        return makers.unary(random.pick(["neg", "abs", "tanh", "sin", "cos", "erf"] as const), a);
      case 1:
        return makers.unary("exp", makers.unary("tanh", a));
      case 2:
        return makers.unary("log", makers.binary("add", makers.unary("abs", a), makers.constant("f32", 1)));
      case 3:
        return makers.select(makers.binary(random.pick(["lt", "le", "eq"] as const), asFloat(load(axes)), makers.constant("f32", 0)), a, b);
      case 4:
        return makers.binary("div", a, makers.binary("add", makers.unary("abs", b), makers.constant("f32", 1)));
      case 5: {
        const integer = makers.cast("i32", load(axes));
        const other = makers.cast("i32", load(axes));
        const kind = random.pick(["add", "sub", "mul", "div", "mod", "and", "or", "xor", "max", "min"] as const);
        return makers.binary("add", a, makers.unary("tanh", asFloat(makers.binary(kind, integer, other))));
      }
      case 6:
        return makers.binary(random.pick(["max", "min"] as const), a, b);
      default:
        return makers.binary(random.pick(["add", "sub", "mul"] as const), makers.unary("tanh", a), b);
    }
  };

  const outerAxes = outer.map((_, axis) => axis);
  const allAxes = [...outerAxes, outer.length];
  const reductions: Reduction[] = [];
  const reductionCount = random.int(3);
  for (let k = 0; k < reductionCount; k++) {
    reductions.push({
      combine: random.pick(["sum", "max", "min"] as const),
      value: value(allAxes, random.int(3), random.int(2) === 0 ? reductions.length : 0),
    });
  }
  const index = (axes: readonly number[]): Index =>
    axes.reduce<Index>((at, axis) => makers.add(makers.mul(at, makers.int(sizes[axis] ?? 1)), variables[axis] as Index), makers.int(0));
  const stores: Store[] = [];
  const rows = outer.reduce((all, size) => all * size, 1);
  const addStore = (scope: "row" | "element"): void => {
    const axes = scope === "row" ? outerAxes : allAxes;
    const stored = random.pick(["f32", "f32", "bf16", "f16"] as const);
    const slot = newSlot(stored, scope === "row" ? rows : rows * inner);
    stores.push({ scope, slot, index: index(axes), value: value(axes, random.int(4), reductions.length) });
  };
  if (reductions.length > 0) addStore("row");
  if (reductions.length === 0 || random.int(2) === 0) addStore("element");
  if (random.int(3) === 0) addStore("element");
  return { kernel: { kind: "loop", outer, inner, reductions, stores }, slots, length: inner };
}

const storedError = { f32: 2e-6, f16: 2e-3, bf16: 1.2e-2 } as const;

/** The largest relative change that disturbed interpretations make to a result of one f32 operation. */
const disturbance = 2 ** -21;

/** Throws where what a backend stored differs from the float64 interpreter by more than rounding explains. */
export function compareLoop({ kernel, slots }: LoopCase, actual: readonly (readonly number[])[]): void {
  const run = (round?: Rounding): Map<number, number[]> => {
    const values = new Map(slots.map((slot, i) => [i, [...slot.values]]));
    interpret(kernel, values, round);
    return values;
  };
  const expected = run();
  // How far results move when every operation is off a little: sums of large terms that cancel move much.
  const random = new Random(1);
  const disturbed = Array.from({ length: 4 }, () => run((x) => x * (1 + disturbance * (2 * random.next() - 1))));
  for (const { slot } of kernel.stores) {
    const dtype = slots[slot]?.dtype as keyof typeof storedError;
    const want = expected.get(slot) ?? [];
    const got = actual[slot] ?? [];
    const near = disturbed.map((values) => values.get(slot) ?? []);
    for (const [i, x] of want.entries()) {
      const y = got[i] ?? Number.NaN;
      const spread = near.reduce((most, values) => Math.max(most, Math.abs((values[i] ?? 0) - x)), 0);
      const tolerance = storedError[dtype] * (1 + Math.abs(x)) + 8 * spread;
      // f16 overflows where f32 does not.
      const isSame = Object.is(x, y) || Math.abs(x - y) <= tolerance || (dtype === "f16" && Math.abs(x) > 65000);
      if (!isSame) throw new Error(`slot ${slot} (${dtype}), element ${i}: ${y} instead of ${x}, tolerance ${tolerance}`);
    }
  }
}
