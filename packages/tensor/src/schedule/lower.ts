import type { Node } from "../graph/node.js";
import { type Expr, ExprMakers, type Index, isInvariant } from "../kernels/expr.js";
import type { LoopKernel, Reduction, SingleKernel, Slot, Store } from "../kernels/kernel.js";
import { computeDType } from "../tensor/dtype.js";
import { type Shape, sizeOf, stridesOf } from "../tensor/shape.js";

/** The kernel that computes a node, or nodes before it that cannot be part of that kernel and need memory of their own. */
export type Lowered = { readonly kernel: SingleKernel } | { readonly store: readonly Node[] };

/** How lowering finds the memory of a node; null for nodes that are computed in place. */
export type FindSlot = (node: Node) => Slot | null;

/** Axis coordinates → position in row-major order. */
export function linearIndex(make: ExprMakers, at: readonly Index[], shape: Shape): Index {
  const strides = stridesOf(shape);
  return at.reduce((sum, position, axis) => make.add(sum, make.mul(position, make.int(strides[axis] ?? 1))), make.int(0));
}

/** Position in row-major order → axis coordinates. */
export function splitIndex(make: ExprMakers, linear: Index, shape: Shape): Index[] {
  const strides = stridesOf(shape);
  return shape.map((size, axis) => {
    const quotient = make.index("div", linear, make.int(strides[axis] ?? 1));
    return axis === 0 ? quotient : make.index("mod", quotient, make.int(size));
  });
}

/** Coordinates of a view's element → coordinates in the tensor that it views. */
export function throughView(
  make: ExprMakers,
  node: Node & { op: "reshape" | "permute" | "expand" | "slice" },
  at: readonly Index[],
): Index[] {
  const { x } = node;
  switch (node.op) {
    case "reshape":
      return reshapedIndex(make, at, node.shape, x.shape);
    case "permute": {
      const inner = new Array<Index>(at.length);
      for (const [axis, from] of node.order.entries()) inner[from] = at[axis] as Index;
      return inner;
    }
    case "expand":
      return at.map((position, axis) => (x.shape[axis] === 1 ? make.int(0) : position));
    case "slice":
      return at.map((position, axis) => make.add(make.mul(position, make.int(node.steps[axis] ?? 1)), make.int(node.starts[axis] ?? 0)));
  }
}

/** Splits and merges only the axes that a reshape really changes, so that the others stay free of arithmetic. */
function reshapedIndex(make: ExprMakers, at: readonly Index[], from: Shape, to: Shape): Index[] {
  if (sizeOf(from) === 0) return to.map(() => make.int(0));
  const result: Index[] = [];
  let [i, j] = [0, 0];
  while (j < to.length || i < from.length) {
    let [endI, endJ] = [i + 1, j + 1];
    let [sizeI, sizeJ] = [from[i] ?? 1, to[j] ?? 1];
    while (sizeI !== sizeJ) {
      if (sizeI < sizeJ) sizeI *= from[endI++] ?? 1;
      else sizeJ *= to[endJ++] ?? 1;
    }
    const linear = linearIndex(make, at.slice(i, endI), from.slice(i, endI));
    result.push(...splitIndex(make, linear, to.slice(j, endJ)));
    [i, j] = [endI, endJ];
  }
  return result.slice(0, to.length);
}

/** Builds the kernel of one stored node. */
class KernelBuilder {
  readonly reductions: Reduction[] = [];
  /** Reductions that do not fit into the kernel, whose other expressions then mean nothing. */
  readonly misfits: Set<Node> = new Set();
  readonly #values = new Map<Node, Map<string, Expr>>();
  #inner: number | null;

  constructor(
    readonly make: ExprMakers,
    readonly findSlot: FindSlot,
    readonly root: Node,
    readonly outerSize: number,
    readonly innerAxis: number,
    inner: number | null,
    /** What arguments from 1 on stand for, in a composite's body. */
    readonly captures: readonly Node[] = [],
  ) {
    this.#inner = inner;
  }

  /** What was built, with stores over the rows `outer`. */
  kernel(outer: readonly number[], stores: readonly Store[]): LoweredLoop {
    if (this.misfits.size > 0) return { store: [...this.misfits] };
    return { kernel: { kind: "loop", outer, inner: this.#inner ?? 1, reductions: this.reductions, stores } };
  }

  /** The value of a node's element at the given coordinates. */
  value(node: Node, at: readonly Index[]): Expr {
    const key = this.make.key(at);
    let known = this.#values.get(node);
    if (!known) this.#values.set(node, (known = new Map()));
    const found = known.get(key);
    if (found) return found;
    const slot = node === this.root ? null : this.findSlot(node);
    const made =
      slot === null ? this.#compute(node, at) : this.make.load(computeDType(node.dtype), slot, linearIndex(this.make, at, node.shape));
    known.set(key, made);
    return made;
  }

  #compute(node: Node, at: readonly Index[]): Expr {
    const { make } = this;
    const dtype = computeDType(node.dtype);
    switch (node.op) {
      case "const":
        return make.constant(dtype, node.value);
      case "iota":
        return at[node.axis] ?? make.int(0);
      case "unary":
        return make.unary(node.kind, this.value(node.x, at));
      case "binary":
        return make.binary(node.kind, this.value(node.a, at), this.value(node.b, at));
      case "select":
        return make.select(this.value(node.condition, at), this.value(node.a, at), this.value(node.b, at));
      case "cast":
        return make.cast(dtype, this.value(node.x, at));
      case "detach":
        return this.value(node.x, at);
      case "reshape":
      case "permute":
      case "expand":
      case "slice":
        return this.value(node.x, throughView(make, node, at));
      case "pad":
        return this.#pad(node, at);
      case "gather": {
        const rank = node.indices.shape.length;
        const index = make.given(this.value(node.indices, at.slice(node.axis, node.axis + rank)));
        const last = make.int((node.x.shape[node.axis] ?? 1) - 1);
        const clamped = make.index("min", make.index("max", index, make.int(0)), last);
        return this.value(node.x, [...at.slice(0, node.axis), clamped, ...at.slice(node.axis + rank)]);
      }
      case "dynamicSlice":
        return this.value(node.x, this.fromStarts(node, node.shape, at));
      case "dynamicUpdateSlice":
        return this.#updated(node, at);
      case "random": {
        const key = (i: number): Expr => this.value(node.key, [make.int(i)]);
        return make.random(key(0), key(1), this.value(node.stream, []), linearIndex(make, at, node.shape));
      }
      case "reduce":
        return this.#reduce(node, at);
      case "argument":
        return node.index === 0 ? make.accumulator(dtype, 0) : this.value(this.captures[node.index - 1] as Node, at);
      case "buffer":
      case "matmul":
      case "scatterAdd":
      case "composite":
      case "output":
        throw new Error(`lower: ${node.op} has no memory.`);
    }
  }

  /** Coordinates within a part → coordinates in the tensor x that it is a part of. */
  fromStarts({ x, starts }: { readonly x: Node; readonly starts: Node }, part: Shape, at: readonly Index[]): Index[] {
    return at.map((position, axis) => {
      const start = this.#start(x, starts, part, axis, at);
      return start ? this.make.add(position, start) : position;
    });
  }

  /** Where a part begins along an axis; null along the batch, which has no starts. */
  #start(x: Node, starts: Node, part: Shape, axis: number, at: readonly Index[]): Index | null {
    const { make } = this;
    const batched = starts.shape.length - 1;
    if (axis < batched) return null;
    const room = make.int((x.shape[axis] ?? 0) - (part[axis] ?? 0));
    const given = make.given(this.value(starts, [...at.slice(0, batched), make.int(axis - batched)]));
    return make.index("min", make.index("max", given, make.int(0)), room);
  }

  /** The update inside the part that it replaces, x outside. */
  #updated(node: Node & { op: "dynamicUpdateSlice" }, at: readonly Index[]): Expr {
    const { make } = this;
    const { shape } = node.update;
    let isInside = make.constant("bool", 1);
    const inner = at.map((position, axis) => {
      const start = this.#start(node.x, node.starts, shape, axis, at);
      if (!start) return position;
      const moved = make.index("sub", position, start);
      isInside = make.binary("and", isInside, make.binary("le", make.int(0), moved));
      isInside = make.binary("and", isInside, make.binary("lt", moved, make.int(shape[axis] ?? 1)));
      return make.index("min", make.index("max", moved, make.int(0)), make.int((shape[axis] ?? 1) - 1));
    });
    return make.select(isInside, this.value(node.update, inner), this.value(node.x, at));
  }

  #pad(node: Node & { op: "pad" }, at: readonly Index[]): Expr {
    const { make } = this;
    let isInside = make.constant("bool", 1);
    const inner = at.map((position, axis) => {
      const before = node.before[axis] ?? 0;
      const size = node.x.shape[axis] ?? 1;
      const moved = make.add(position, make.int(-before));
      isInside = make.binary("and", isInside, make.binary("le", make.int(before), position));
      isInside = make.binary("and", isInside, make.binary("lt", position, make.int(before + size)));
      return make.index("min", make.index("max", moved, make.int(0)), make.int(Math.max(size - 1, 0)));
    });
    const fill = make.constant(computeDType(node.dtype), node.value);
    return sizeOf(node.x.shape) === 0 ? fill : make.select(isInside, this.value(node.x, inner), fill);
  }

  /** A reduction inside this kernel: possible when each row of the kernel is one of its results. */
  #reduce(node: Node & { op: "reduce" }, at: readonly Index[]): Expr {
    const { make } = this;
    const reduced = node.axes.map((axis) => node.x.shape[axis] ?? 1);
    const count = sizeOf(reduced);
    const isRowValue = at.every((position) => isInvariant(position, this.innerAxis));
    if (!isRowValue || sizeOf(node.shape) !== this.outerSize || (this.#inner !== null && this.#inner !== count)) {
      this.misfits.add(node);
      return make.constant(computeDType(node.dtype), 0);
    }
    this.#inner = count;
    const inside = splitIndex(make, make.variable(this.innerAxis, count), reduced);
    const coordinates = at.map((position, axis) => (node.axes.includes(axis) ? (inside[node.axes.indexOf(axis)] as Index) : position));
    const value = this.value(node.x, coordinates);
    const index = this.reductions.push({ combine: node.kind, value }) - 1;
    return make.accumulator(value.dtype, index);
  }
}

/** Sizes of fused reductions that the node's kernel would contain, nearest first. */
function reductionSizes(root: Node, findSlot: FindSlot, inputs: (node: Node) => readonly Node[]): number[] {
  const sizes: number[] = [];
  const seen = new Set<Node>();
  const stack = [root];
  while (stack.length > 0) {
    const node = stack.pop() as Node;
    if (seen.has(node) || (node !== root && findSlot(node) !== null)) continue;
    seen.add(node);
    if (node.op === "reduce") sizes.push(sizeOf(node.axes.map((axis) => node.x.shape[axis] ?? 1)));
    stack.push(...inputs(node));
  }
  return sizes;
}

/** The kernel that computes `root` into `slot`, or the reductions that do not fit into it. */
export function lowerKernel(
  root: Node,
  slot: Slot,
  findSlot: FindSlot,
  inputs: (node: Node) => readonly Node[],
  place: Place = inOrder,
): LoweredLoop {
  const sizes = reductionSizes(root, findSlot, inputs);
  if (sizes.length === 0) return elementKernel(root, slot, findSlot, root.shape.length === 0 ? 0 : 1, place);
  let misfit: LoweredLoop | null = null;
  for (const way of ways(root, sizes)) {
    const lowered = way === "rows" ? rowKernel(root, slot, findSlot, place) : elementKernel(root, slot, findSlot, way, place);
    if ("kernel" in lowered) return lowered;
    misfit ??= lowered;
  }
  return misfit ?? { store: [root] };
}

/** A loop kernel, or what has to be stored before it. */
type LoweredLoop = { readonly kernel: LoopKernel } | { readonly store: readonly Node[] };

/**
 * A composite's bodies as expressions of one maker: accumulator 0 is argument 0 and the variables are its axes; the other arguments are read
 * where `captures` have memory behind views.
 */
export function lowerBodies(bodies: readonly Node[], captures: readonly Node[], findSlot: FindSlot): Expr[] {
  const make = new ExprMakers();
  return bodies.map((body) => {
    const at = body.shape.map((size, axis) => make.variable(axis, size));
    return new KernelBuilder(make, findSlot, body, sizeOf(body.shape), body.shape.length, null, captures).value(body, at);
  });
}

/** Where an element of a kernel's result is stored. */
type Place = (builder: KernelBuilder, at: readonly Index[]) => Index;

const inOrder: Place = ({ make, root }, at) => linearIndex(make, at, root.shape);

/** The kernel that stores the update of a `dynamicUpdateSlice` where it belongs in `slot`, over what `over` holds. */
export function lowerUpdate(
  node: Node & { op: "dynamicUpdateSlice" },
  slot: Slot,
  from: Slot,
  findSlot: FindSlot,
  inputs: (node: Node) => readonly Node[],
): LoweredLoop {
  const { update, shape } = node;
  // A stored update is loaded, not computed: its own slot is that of another kernel.
  const held = findSlot(update);
  const place: Place = (builder, at) => linearIndex(builder.make, builder.fromStarts(node, update.shape, at), shape);
  const root: Node = held === null ? update : { op: "reshape", x: update, shape: update.shape, dtype: update.dtype };
  const lowered = lowerKernel(root, slot, findSlot, inputs, place);
  return "store" in lowered ? lowered : { kernel: { ...lowered.kernel, over: { from, into: slot } } };
}

/** Ways to lay the loops: with the trailing axes that match a reduction as the inner loop, or with one result a row. */
function ways(root: Node, sizes: readonly number[]): (number | "rows")[] {
  if (root.op === "reduce") return ["rows"];
  const found: (number | "rows")[] = [];
  let trailing = 1;
  for (let count = 1; count <= root.shape.length; count++) {
    trailing *= root.shape[root.shape.length - count] ?? 1;
    if (trailing > 1 && sizes.includes(trailing)) found.push(count);
  }
  return [...found, "rows"];
}

/** The value of an operand's element, whose coordinates are the variables; or reductions in it, which do not fit. */
export function lowerOperand(operand: Node, findSlot: FindSlot): { readonly value: Expr } | { readonly store: readonly Node[] } {
  const make = new ExprMakers();
  const at = operand.shape.map((size, axis) => make.variable(axis, size));
  const builder = new KernelBuilder(make, findSlot, operand, 0, operand.shape.length, 0);
  const value = builder.value(operand, at);
  return builder.misfits.size > 0 ? { store: [...builder.misfits] } : { value };
}

/** Every element of the last `innerAxes` axes in the inner loop. */
function elementKernel(root: Node, slot: Slot, findSlot: FindSlot, innerAxes: number, place: Place): LoweredLoop {
  const make = new ExprMakers();
  const split = root.shape.length - innerAxes;
  const outer = root.shape.slice(0, split);
  const innerShape = root.shape.slice(split);
  const inner = sizeOf(innerShape);
  const builder = new KernelBuilder(make, findSlot, root, sizeOf(outer), outer.length, inner);
  const at = [...outer.map((size, axis) => make.variable(axis, size)), ...splitIndex(make, make.variable(outer.length, inner), innerShape)];
  const value = builder.value(root, at);
  const store: Store = { scope: "element", slot, index: place(builder, at), value };
  return builder.kernel(outer, [store]);
}

/** One result a row, the inner loop belongs to the reductions. */
function rowKernel(root: Node, slot: Slot, findSlot: FindSlot, place: Place): LoweredLoop {
  const make = new ExprMakers();
  const outer = root.shape;
  const builder = new KernelBuilder(make, findSlot, root, sizeOf(outer), outer.length, null);
  const at = outer.map((size, axis) => make.variable(axis, size));
  const value = builder.value(root, at);
  const store: Store = { scope: "row", slot, index: place(builder, at), value };
  return builder.kernel(outer, [store]);
}
