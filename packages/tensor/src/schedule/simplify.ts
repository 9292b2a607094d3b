import type { Node } from "../graph/node.js";
import { type Shape, sameShape, sizeOf } from "../tensor/shape.js";

/** Records a node in the graph being simplified and returns it, or the equal one that is there. */
export type Make = (node: Node) => Node;

/** Whether a node can be anything simpler: composites' outputs by their definition, the others by `simplify`. */
export function mayBeSimpler({ op }: Node): boolean {
  return op === "output" || isSimplified.has(op);
}

const isSimplified: ReadonlySet<Node["op"]> = new Set([
  "binary",
  "reshape",
  "expand",
  "cast",
  "permute",
  "slice",
  "dynamicSlice",
  "matmul",
]);

/**
 * A node that says the same in less: neutral operations, views of views, parts of tensors that were put side by side, numbers multiplied
 * into a matrix product. null where there is nothing to gain.
 */
export function simplify(node: Node, make: Make): Node | null {
  switch (node.op) {
    case "binary":
      return neutral(node);
    case "reshape":
      if (node.x.op === "const") return { ...node.x, shape: node.shape };
      if (sameShape(node.shape, node.x.shape)) return node.x;
      return node.x.op === "reshape" ? { ...node, x: node.x.x } : null;
    case "expand":
      if (node.x.op === "const") return { ...node.x, shape: node.shape };
      return node.x.op === "expand" ? { ...node, x: node.x.x } : null;
    case "cast":
      return node.x.dtype === node.dtype ? node.x : null;
    case "permute":
      return permuted(node);
    case "slice":
      return new Slicer(make).part(node.x, {
        starts: node.starts,
        steps: node.steps,
        shape: node.shape,
      });
    case "dynamicSlice":
      return fixedSlice(node);
    case "matmul":
      return withoutFactor(node, make);
    default:
      return null;
  }
}

/** x + 0, x · 1, x / 1 → x. */
function neutral(node: Node & { op: "binary" }): Node | null {
  const isConst = (n: Node, value: number): boolean => n.op === "const" && n.value === value && !Object.is(n.value, -0);
  if (node.kind === "mul" && isConst(node.b, 1)) return node.a;
  if (node.kind === "mul" && isConst(node.a, 1)) return node.b;
  if (node.kind === "div" && isConst(node.b, 1)) return node.a;
  if (node.kind === "sub" && isConst(node.b, 0)) return node.a;
  // x + 0 turns −0 into 0; nothing that trains depends on that sign.
  if (node.kind === "add" && isConst(node.b, 0)) return node.a;
  if (node.kind === "add" && isConst(node.a, 0)) return node.b;
  return null;
}

/** A slice where all starts are one known number, or the update that was put there. */
function fixedSlice(node: Node & { op: "dynamicSlice" }): Node | null {
  const { x, starts, shape } = node;
  if (x.op === "dynamicUpdateSlice" && x.starts === starts && sameShape(x.update.shape, shape)) return x.update;
  if (starts.op !== "const") return null;
  const batched = starts.shape.length - 1;
  const first = (size: number, axis: number): number => Math.min(Math.max(starts.value, 0), size - (shape[axis] ?? 0));
  return {
    op: "slice",
    x,
    starts: x.shape.map((size, axis) => (axis < batched ? 0 : first(size, axis))),
    steps: x.shape.map(() => 1),
    shape,
    dtype: node.dtype,
  };
}

/** Permutations of a permutation as one; those that change nothing go. */
function permuted(node: Node & { op: "permute" }): Node | null {
  const inner = node.x.op === "permute" ? node.x : null;
  const order = inner ? node.order.map((axis) => inner.order[axis] ?? 0) : node.order;
  const x = inner ? inner.x : node.x;
  if (order.every((from, axis) => from === axis)) return x;
  return inner ? { ...node, x, order } : null;
}

/** (c x) w → c (x w): the product reads x where it lies, and c joins what is done to the result. */
function withoutFactor(node: Node & { op: "matmul" }, make: Make): Node | null {
  const [a, b] = [factorOf(node.a, make), factorOf(node.b, make)];
  if (!a && !b) return null;
  const product = make({ ...node, a: a?.rest ?? node.a, b: b?.rest ?? node.b });
  const value = (a?.factor ?? 1) * (b?.factor ?? 1);
  const factor = make({ op: "const", value, shape: node.shape, dtype: "f32" });
  return { op: "binary", kind: "mul", a: product, b: factor, shape: node.shape, dtype: "f32" };
}

/** The number that a matrix, seen through views, is multiplied by. */
function factorOf(node: Node, make: Make): { factor: number; rest: Node } | null {
  if (node.op === "binary" && node.kind === "mul" && node.dtype === "f32") {
    for (const [number, rest] of [
      [node.a, node.b],
      [node.b, node.a],
    ] as const) {
      if (number.op === "const" && Number.isFinite(number.value)) return { factor: number.value, rest };
    }
  }
  if (node.op !== "reshape" && node.op !== "permute" && node.op !== "expand") return null;
  const inner = factorOf(node.x, make);
  return inner && { factor: inner.factor, rest: make({ ...node, x: inner.rest }) };
}

/** Elements start + i · step of each axis. */
interface Part {
  readonly starts: readonly number[];
  readonly steps: readonly number[];
  readonly shape: Shape;
}

/** Operations that are looked through for what a part is made of. */
const maxDepth = 64;

/** Finds what a part of a tensor is where it lies wholly inside or outside of what the tensor is put together from. */
class Slicer {
  readonly #known = new Map<Node, Map<string, Node | null>>();
  #depth = 0;

  constructor(readonly make: Make) {}

  /** The part without the pads and choices that do not reach it; null where none goes away. */
  part(x: Node, part: Part): Node | null {
    if (sizeOf(part.shape) === 0) return null;
    const key = `${part.starts.join()};${part.steps.join()};${part.shape.join()}`;
    let known = this.#known.get(x);
    if (!known) this.#known.set(x, (known = new Map()));
    const found = known.get(key);
    if (found !== undefined) return found;
    if (this.#depth >= maxDepth) return null;
    this.#depth++;
    const made = this.#find(x, part);
    this.#depth--;
    known.set(key, made);
    return made;
  }

  /** The part, as a slice where it is nothing simpler. */
  #always(x: Node, part: Part): Node {
    const found = this.part(x, part);
    if (found) return found;
    if (isAll(x, part)) return x;
    return this.make({ op: "slice", x, starts: part.starts, steps: part.steps, shape: part.shape, dtype: x.dtype });
  }

  #find(x: Node, part: Part): Node | null {
    switch (x.op) {
      case "const":
        return this.make({ ...x, shape: part.shape });
      case "slice": {
        const starts = part.starts.map((start, axis) => (x.starts[axis] ?? 0) + start * (x.steps[axis] ?? 1));
        const steps = part.steps.map((step, axis) => step * (x.steps[axis] ?? 1));
        return this.#always(x.x, { starts, steps, shape: part.shape });
      }
      case "pad":
        return this.#ofPad(x, part);
      case "select": {
        const isTrue = isTrueOn(x.condition, part);
        if (isTrue !== null) return this.#always(isTrue ? x.a : x.b, part);
        return null;
      }
      case "unary":
      case "cast": {
        const inner = this.part(x.x, part);
        return inner && this.make({ ...x, x: inner, shape: part.shape });
      }
      case "binary": {
        const [a, b] = [this.part(x.a, part), this.part(x.b, part)];
        if (x.kind === "add" && a && isZero(a)) return b ?? this.#always(x.b, part);
        if (x.kind === "add" && b && isZero(b)) return a ?? this.#always(x.a, part);
        return a && b && this.make({ ...x, a, b, shape: part.shape });
      }
      case "reshape": {
        const ends = lastAxisOnly(x, part);
        const inner = ends && this.part(x.x, ends);
        return inner && this.make({ op: "reshape", x: inner, shape: part.shape, dtype: x.dtype });
      }
      default:
        return null;
    }
  }

  #ofPad(x: Node & { op: "pad" }, part: Part): Node | null {
    let isInside = true;
    for (const [axis, size] of x.x.shape.entries()) {
      const before = x.before[axis] ?? 0;
      const { low, high } = reach(part, axis);
      if (high < before || low >= before + size) return this.make({ op: "const", value: x.value, shape: part.shape, dtype: x.dtype });
      if (low < before || high >= before + size) isInside = false;
    }
    if (!isInside) return null;
    return this.#always(x.x, { ...part, starts: part.starts.map((start, axis) => start - (x.before[axis] ?? 0)) });
  }
}

function isAll(x: Node, part: Part): boolean {
  return sameShape(x.shape, part.shape) && part.steps.every((step, axis) => step === 1 || part.shape[axis] === 1);
}

function isZero(node: Node): boolean {
  return node.op === "const" && node.value === 0;
}

/** The first and the last position that a part takes of an axis. */
function reach(part: Part, axis: number): { low: number; high: number } {
  const start = part.starts[axis] ?? 0;
  const end = start + ((part.shape[axis] ?? 1) - 1) * (part.steps[axis] ?? 1);
  return { low: Math.min(start, end), high: Math.max(start, end) };
}

/** Whether a comparison of the position along an axis with a number holds in all of a part, or nowhere in it; null otherwise. */
function isTrueOn(condition: Node, part: Part): boolean | null {
  if (condition.op !== "binary" || condition.kind !== "lt" || condition.a.op !== "iota" || condition.b.op !== "const") return null;
  const { low, high } = reach(part, condition.a.axis);
  if (high < condition.b.value) return true;
  return low >= condition.b.value ? false : null;
}

/** The same part before a reshape that leaves the last axis, the only one that is cut, as it is. */
function lastAxisOnly(x: Node & { op: "reshape" }, part: Part): Part | null {
  const last = x.shape.length - 1;
  const inner = x.x.shape;
  const isCutBefore = part.shape.some((size, axis) => axis < last && (size !== x.shape[axis] || (part.steps[axis] ?? 1) < 0));
  if (last < 0 || isCutBefore || inner.at(-1) !== x.shape[last]) return null;
  const ends = (values: readonly number[], fill: number): number[] => [...inner.slice(1).map(() => fill), values[last] ?? fill];
  return { starts: ends(part.starts, 0), steps: ends(part.steps, 1), shape: [...inner.slice(0, -1), part.shape[last] ?? 1] };
}
