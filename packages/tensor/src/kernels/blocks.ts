import { type Expr, ExprMakers, expressionsBelow, type Index, isInvariant, type Range, strideOf } from "./expr.js";
import { substitute } from "./substitute.js";

/** What is known of values that lanes hold as bytes, where lanes of variable `axis` are sixteen. */
export interface BytesInLanes {
  /** The loads of an integer that is made of bytes wherever they lie; null for other values. */
  loadsOf(expr: Expr): readonly Expr[] | null;
  /** The integer by which a table of few entries is read; null for other loads. */
  codeOf(load: Expr & { readonly op: "load" }): Expr | null;
}

/** Lanes of a vector, and of as many vectors as hold sixteen bytes: small integers are computed that many at a time. */
const lanesOfVectors = [16, 4] as const;

/**
 * How an axis is walked in blocks of `size` positions: a block is size / lanes units. Lanes of a unit lie `step` positions apart, so that
 * where neighbours share a byte, lanes do not.
 */
export interface Blocks {
  readonly size: number;
  readonly step: number;
  readonly lanes: number;
}

/** Where the lanes of a unit lie in a block: at first + step · lane. */
export function firstOfUnit({ step, lanes }: Blocks, unit: number): number {
  return Math.floor(unit / step) * lanes * step + (unit % step);
}

export function unitsOf({ size, lanes }: Blocks): number {
  return size / lanes;
}

/** The position that a lane of a unit of a block has. */
export function positionIn(make: ExprMakers, blocks: Blocks, block: Index, unit: number, lane: Index): Index {
  // What is the same in all units comes first, so that they differ by a constant.
  const start = make.add(make.mul(block, make.int(blocks.size)), make.mul(lane, make.int(blocks.step)));
  return make.add(start, make.int(firstOfUnit(blocks, unit)));
}

/** Blocks of an axis, and what reading an element there costs, in loads of four neighbours. */
export interface Walk {
  readonly blocks: Blocks;
  readonly cost: number;
}

/** Positions of another axis that a walk takes at a time: what is the same in all of them is read once. */
export interface Held {
  readonly axis: number;
  readonly positions: number;
}

const bytesInVector = 16;
/** What looking four values up in a table takes, in loads. */
const lookUpCost = 2;
/** Past this many positions a block is more code than it saves. */
const mostPositions = 256;
/** Up to so many positions a larger block is better where it costs no more. */
const shortTurn = 16;
/** The share of a smaller block's cost that a larger one may have, and fewer lanes of more lanes'. */
const mostOfSmaller = 0.95;
const mostOfMoreLanes = 0.8;
/** What four loads cost that are not of neighbours. */
const scatteredCost = 4;
/** And one of an element for all lanes. */
const sharedCost = 0.5;
/** And a step of arithmetic for all lanes. */
const sharedStepCost = 0.1;

/**
 * The smallest blocks of an axis in which every index is linear in the lane and every condition is the same for all lanes: divisions of the
 * position by constants, as a tensor in blocks has them, are gone then. Bytes
 * may follow from the position in any way, where sixteen lanes find them near each other. Null where there are none.
 * With `held`, what does not change over positions of another axis costs a share alone.
 */
export function walkOf(value: Expr, axis: number, size: number, inBytes: BytesInLanes, held: Held | null = null): Walk | null {
  const plain = plainLoads(value, axis, size);
  if (plain === "scattered") return null;
  const divisors = divisorsOf(value, axis);
  const sizes = new Set<number>([4, 8, 16, 32, 64, 128, 256]);
  for (const divisor of divisors) for (const multiple of [1, 2, 4, 8]) sizes.add(divisor * multiple);
  let most = Number.POSITIVE_INFINITY;
  const found = lanesOfVectors.flatMap((lanes) => {
    let best: Walk | null = null;
    for (const blockSize of [...sizes].sort((a, b) => a - b)) {
      if (blockSize > mostPositions || size % blockSize !== 0) continue;
      for (const step of [1, 2, 4, 8]) {
        if (blockSize % (lanes * step) !== 0) continue;
        const blocks = { size: blockSize, step, lanes };
        const limit = Math.min(most, best?.cost ?? Number.POSITIVE_INFINITY);
        const cost = plain ? costOfPlain(plain, blocks) : costOf(value, { axis, size, held }, blocks, inBytes, limit);
        // A larger block has to save something, but a turn of the loop should not be too short.
        if (cost !== null && (!best || cost < best.cost * mostOfSmaller || (blockSize <= shortTurn && cost <= best.cost)))
          best = { blocks, cost };
      }
    }
    // Of fewer lanes, what costs more than this is never chosen, nor does it stand in the way of what is.
    if (best) most = (best.cost * mostOfMoreLanes) / mostOfSmaller;
    return best ? [best] : [];
  });
  // More lanes first: they are worth a little.
  return found.reduce<Walk | null>((best, walk) => (best && walk.cost > best.cost * mostOfMoreLanes ? best : walk), null);
}

/** How far each load of an expression moves with an axis, and how many do not. */
interface PlainLoads {
  readonly strides: readonly number[];
  readonly sharedCount: number;
}

/**
 * The loads of an expression in which nothing is divided or chosen by the position along an axis, so that every block costs what its loads
 * do; "scattered" where one of them follows no stride, whatever the block. Null for other expressions, which each block may change.
 */
function plainLoads(value: Expr, axis: number, size: number): PlainLoads | "scattered" | null {
  const strides: number[] = [];
  const reaches = new Map<number, Range & { readonly stride: number | null }>();
  let sharedCount = 0;
  let isScattered = false;
  for (const expr of expressionsBelow([value])) {
    if (isInvariant(expr, axis)) {
      if (expr.op === "load") sharedCount++;
    } else if (expr.op === "load") {
      const stride = strideOf(expr.index, axis);
      if (stride === 0) return null;
      const { low, high } = expr.index;
      const others = reaches.get(expr.slot);
      const reach = { stride, low: Math.min(low, others?.low ?? low), high: Math.max(high, others?.high ?? high) };
      // Two loads of one slot may meet in a block, unless they are near each other at every position and positions are farther apart.
      if (others && (stride === null || others.stride !== stride || !(reach.high - reach.low < Math.abs(stride) * size))) return null;
      reaches.set(expr.slot, reach);
      if (stride !== null) strides.push(stride);
      // A table of few entries lies in registers.
      else if (!isGivenBehind(expr.index, axis) || expr.index.high - expr.index.low < bytesInVector) return null;
      else isScattered = true;
    } else if (expr.op === "select" && !isInvariant(expr.condition, axis)) return null;
    else if (expr.op === "index" && expr.kind !== "add" && expr.kind !== "sub" && expr.kind !== "mul") {
      // The smaller and the larger of what the user's values say do not follow from the position.
      if ((expr.kind !== "min" && expr.kind !== "max") || !isGiven(expr)) return null;
    } else if (isDivision(expr)) return null;
  }
  return isScattered ? "scattered" : { strides, sharedCount };
}

/** Whether an index is a user's value within bounds. */
function isGiven(index: Index): boolean {
  if (index.op === "index") return (index.kind === "min" || index.kind === "max") && isGiven(index.a) && index.b.op === "const";
  return index.op === "given";
}

/** Whether an index is the sum of a user's value that changes with an axis, times a number, and of something else. */
function isGivenBehind(index: Index, axis: number): boolean {
  if (index.op === "index" && (index.kind === "add" || index.kind === "mul"))
    return isGivenBehind(index.a, axis) || (index.kind === "add" && isGivenBehind(index.b, axis));
  return isGiven(index) && !isInvariant(index, axis);
}

/** What `costOf` is for such loads. */
function costOfPlain({ strides, sharedCount }: PlainLoads, blocks: Blocks): number {
  let cost = sharedCount * sharedCost;
  for (const stride of strides) cost += (unitsOf(blocks) * (stride * blocks.step === 1 ? 1 : scatteredCost) * blocks.lanes) / 4;
  return (cost * 4) / blocks.size;
}

/**
 * Loads of four neighbours that an element takes, shared among the units of a block; null where lanes differ in more than their addresses, or where
 * they are more than `limit`. Units are looked at one after another, because most blocks are out after a few.
 */
function costOf(
  value: Expr,
  { axis, size, held }: { readonly axis: number; readonly size: number; readonly held: Held | null },
  blocks: Blocks,
  inBytes: BytesInLanes,
  limit: number,
): number | null {
  const make = new ExprMakers();
  const lane = make.variable(axis, blocks.lanes);
  // Other variables keep their numbers, and the block's comes after all of them.
  const block = make.variable(blockAxis, size / blocks.size);
  const rootOf = (unit: number): Expr => {
    const at = positionIn(make, blocks, block, unit, lane);
    return substitute(value, make, (old, oldSize) => (old === axis ? at : make.variable(old, oldSize)));
  };
  const bytes = new Set<Expr>();
  // What is made of bytes takes their loads, whatever lies between.
  const areBytes = (expr: Expr): boolean => {
    if (blocks.lanes !== bytesInVector || isInvariant(expr, axis)) return false;
    const code = expr.op === "load" ? inBytes.codeOf(expr) : null;
    const loads = inBytes.loadsOf(code ?? expr);
    for (const load of loads ?? []) bytes.add(load);
    if (code && loads) lookUps.add(expr);
    return loads !== null;
  };
  const lookUps = new Set<Expr>();
  const quarter = blocks.lanes / 4;
  const times = (expr: Expr): number => (held && isInvariant(expr, held.axis) ? 1 / held.positions : 1);
  /** What an expression costs beside its operands; null for one that lanes cannot have. */
  const own = (expr: Expr): number | null => {
    if (isInvariant(expr, axis)) {
      if (expr.op === "load") return sharedCost * times(expr);
      return expr.op === "binary" || expr.op === "select" ? sharedStepCost * times(expr) : 0;
    }
    if (expr.op === "load") {
      const stride = strideOf(expr.index, axis);
      return stride === null ? null : (stride === 1 ? 1 : scatteredCost) * quarter * times(expr);
    }
    // There is no instruction for it.
    if (expr.op === "binary" && (expr.kind === "shl" || expr.kind === "shr") && !isInvariant(expr.b, axis))
      return scatteredCost * quarter * times(expr);
    return isDivision(expr) || (expr.op === "select" && !isInvariant(expr.condition, axis)) ? null : 0;
  };
  const counted = new Set<Expr>();
  let ofExpressions = 0;
  let cost = 0;
  for (let unit = 0; unit < unitsOf(blocks); unit++) {
    for (const expr of expressionsBelow([rootOf(unit)], { has: (each) => counted.has(each) || areBytes(each) })) {
      counted.add(expr);
      const added = own(expr);
      if (added === null) return null;
      ofExpressions += added;
    }
    let sum = ofExpressions;
    for (const load of bytes) sum += quarter * times(load);
    for (const lookUp of lookUps) sum += lookUpCost * quarter * times(lookUp);
    cost = (sum * 4) / blocks.size;
    if (cost > limit) return null;
  }
  return cost;
}

/** Whether integers are divided; what the user divides by a power of two are mostly bits, and no division. */
function isDivision(expr: Expr): boolean {
  if ((expr.op !== "index" && expr.op !== "binary") || (expr.kind !== "div" && expr.kind !== "mod") || expr.dtype === "f32") return false;
  return !(expr.op === "binary" && expr.b.op === "const" && Number.isInteger(Math.log2(expr.b.value)));
}

/** A number for a variable that no kernel has. */
const blockAxis = 30;

/** By which constants an expression divides what depends on an axis. */
function divisorsOf(value: Expr, axis: number): Set<number> {
  const divisors = new Set<number>();
  for (const expr of expressionsBelow([value])) {
    if (expr.op !== "index" || (expr.kind !== "div" && expr.kind !== "mod") || isInvariant(expr, axis)) continue;
    if (expr.b.op === "const" && expr.b.value > 0 && expr.b.value <= mostPositions) divisors.add(expr.b.value);
  }
  return divisors;
}
