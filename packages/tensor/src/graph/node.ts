import type { BinaryKind } from "../elementwise/binary.js";
import type { ReduceKind } from "../elementwise/reduce.js";
import type { UnaryKind } from "../elementwise/unary.js";
import type { DType } from "../tensor/dtype.js";
import type { Shape } from "../tensor/shape.js";
import type { Place } from "./history.js";
import type { Storage, Version } from "./storage.js";

export type { BinaryKind } from "../elementwise/binary.js";
export type { ReduceKind } from "../elementwise/reduce.js";
export type { UnaryKind } from "../elementwise/unary.js";

/** What a composite primitive is told besides its tensors. */
export type Attributes = Readonly<Record<string, number | boolean | string>>;

interface Typed {
  readonly shape: Shape;
  readonly dtype: DType;
}

/**
 * One node of the expression graph. Nodes are immutable and describe values, not buffers: what is computed, fused or kept is the
 * scheduler's decision. Operands of elementwise nodes have equal shapes (broadcasting is an explicit `expand`) and compute dtypes.
 */
export type Node =
  /** A shape filled with one value. */
  | (Typed & { readonly op: "const"; readonly value: number })
  /** 0, 1, 2, … along `axis`; i32. */
  | (Typed & { readonly op: "iota"; readonly axis: number })
  /** What a storage holds at a version, which later assignments do not change, and where `grad` finds the expression behind it. */
  | (Typed & {
      readonly op: "buffer";
      readonly storage: Storage;
      readonly version: Version;
      readonly history?: Place;
    })
  /** Philox4x32-10 words: element i is word i & 3 of counter [i >> 2, 0, stream, 0] under the u32 key [2]. */
  | (Typed & { readonly op: "random"; readonly key: Node; readonly stream: Node })
  | (Typed & { readonly op: "unary"; readonly kind: UnaryKind; readonly x: Node })
  | (Typed & { readonly op: "binary"; readonly kind: BinaryKind; readonly a: Node; readonly b: Node })
  | (Typed & { readonly op: "select"; readonly condition: Node; readonly a: Node; readonly b: Node })
  | (Typed & { readonly op: "cast"; readonly x: Node })
  /** x itself; `grad` does not look behind it. */
  | (Typed & { readonly op: "detach"; readonly x: Node })
  /** Reduced axes stay with size 1. */
  | (Typed & { readonly op: "reduce"; readonly kind: ReduceKind; readonly x: Node; readonly axes: readonly number[] })
  | (Typed & { readonly op: "reshape"; readonly x: Node })
  /** Axis i of the result is axis `order[i]` of x. */
  | (Typed & { readonly op: "permute"; readonly x: Node; readonly order: readonly number[] })
  /** Axes of size 1 repeated to the result's shape. */
  | (Typed & { readonly op: "expand"; readonly x: Node })
  /** Element i along an axis is element start + i · step of x; steps may be negative. */
  | (Typed & { readonly op: "slice"; readonly x: Node; readonly starts: readonly number[]; readonly steps: readonly number[] })
  /** x in the middle of `value`; `before[axis]` elements in front. */
  | (Typed & { readonly op: "pad"; readonly x: Node; readonly before: readonly number[]; readonly value: number })
  /** numpy.take: the indices' shape stands where `axis` stood. Indices are clamped to the axis. */
  | (Typed & { readonly op: "gather"; readonly x: Node; readonly indices: Node; readonly axis: number })
  /**
   * The part of x that begins at `starts`, i32 [rank]; or [batch, rank − 1], where each row of the first axis has its own start. Starts are
   * clamped so that the part lies inside x.
   */
  | (Typed & { readonly op: "dynamicSlice"; readonly x: Node; readonly starts: Node })
  /** x with `update`, of x's dtype, in place of the part that begins at `starts`. */
  | (Typed & { readonly op: "dynamicUpdateSlice"; readonly x: Node; readonly update: Node; readonly starts: Node })
  /** [rows, width] of zeros with updates[n, :] added at row indices[n]; indices outside are skipped. */
  | (Typed & { readonly op: "scatterAdd"; readonly indices: Node; readonly updates: Node })
  /** [...batch, m, k] · [...batch, k, n] → [...batch, m, n]; equal batch axes. `plus` is made by the scheduler alone. */
  | (Typed & {
      readonly op: "matmul";
      readonly a: Node;
      readonly b: Node;
      /** More products of the same shape, each times a number, that are added. */
      readonly plus?: readonly { readonly a: Node; readonly b: Node; readonly factor: number }[];
      /** Whether a backend may round the rows of a where b is in blocks (ops/rounded.ts). */
      readonly isRounded?: true;
    })
  /** Inside a composite's body: its input number `index` from the body's point of view (graph/body.ts). */
  | (Typed & { readonly op: "argument"; readonly index: number })
  /** Several results from one definition in ops/composite.ts; read through `output` nodes. Its shape is the first result's. */
  | (Typed & {
      readonly op: "composite";
      readonly name: string;
      readonly inputs: readonly Node[];
      readonly attributes: Attributes;
      readonly outputs: readonly Typed[];
      /** Elementwise functions that the kernel computes on the way. `attributes.captures` of the last inputs are read by them alone. */
      readonly bodies?: readonly Node[];
    })
  | (Typed & { readonly op: "output"; readonly of: Node & { readonly op: "composite" }; readonly index: number });

/** The nodes that a node reads. */
export function inputsOf(node: Node): readonly Node[] {
  switch (node.op) {
    case "const":
    case "iota":
    case "buffer":
    case "argument":
      return [];
    case "random":
      return [node.key, node.stream];
    case "unary":
    case "cast":
    case "detach":
    case "reduce":
    case "reshape":
    case "permute":
    case "expand":
    case "slice":
    case "pad":
      return [node.x];
    case "binary":
      return [node.a, node.b];
    case "matmul":
      return [node.a, node.b, ...(node.plus ?? []).flatMap(({ a, b }) => [a, b])];
    case "select":
      return [node.condition, node.a, node.b];
    case "gather":
      return [node.x, node.indices];
    case "dynamicSlice":
      return [node.x, node.starts];
    case "dynamicUpdateSlice":
      return [node.x, node.update, node.starts];
    case "scatterAdd":
      return [node.indices, node.updates];
    case "composite":
      return node.inputs;
    case "output":
      return [node.of];
  }
}

/** One of the nodes that a node reads, in the order of `inputsOf`; undefined where it reads no more. For walks over all of a graph: it makes no list. */
export function inputAt(node: Node, index: number): Node | undefined {
  switch (node.op) {
    case "const":
    case "iota":
    case "buffer":
    case "argument":
      return undefined;
    case "unary":
    case "cast":
    case "detach":
    case "reduce":
    case "reshape":
    case "permute":
    case "expand":
    case "slice":
    case "pad":
      return index === 0 ? node.x : undefined;
    case "binary":
      return index === 0 ? node.a : index === 1 ? node.b : undefined;
    case "matmul":
      if (index < 2) return index === 0 ? node.a : node.b;
      return node.plus?.[(index >> 1) - 1]?.[index % 2 === 0 ? "a" : "b"];
    case "composite":
      return node.inputs[index];
    case "output":
      return index === 0 ? node.of : undefined;
    default:
      return inputsOf(node)[index];
  }
}

/**
 * The same node over other inputs, in the order of `inputsOf`. Fields are written out, in the order in which operations make them: copies
 * are then of one class with what they are of, which is quicker to make and to read.
 */
export function withInputs(node: Node, inputs: readonly Node[]): Node {
  const { shape, dtype } = node;
  switch (node.op) {
    case "const":
    case "iota":
    case "buffer":
    case "argument":
      return node;
    case "random":
      return { ...node, key: at(node, inputs, 0), stream: at(node, inputs, 1) };
    case "unary":
      return { op: "unary", kind: node.kind, x: at(node, inputs, 0), shape, dtype };
    case "cast":
    case "detach":
    case "reshape":
    case "expand":
      return { op: node.op, x: at(node, inputs, 0), shape, dtype };
    case "reduce":
      return { op: "reduce", kind: node.kind, x: at(node, inputs, 0), axes: node.axes, shape, dtype };
    case "permute":
      return { op: "permute", x: at(node, inputs, 0), order: node.order, shape, dtype };
    case "slice":
      return { op: "slice", x: at(node, inputs, 0), starts: node.starts, steps: node.steps, shape, dtype };
    case "pad":
      return { ...node, x: at(node, inputs, 0) };
    case "binary":
      return { op: "binary", kind: node.kind, a: at(node, inputs, 0), b: at(node, inputs, 1), shape, dtype };
    case "matmul": {
      const plus = node.plus?.map((product, i) => ({ ...product, a: at(node, inputs, 2 * i + 2), b: at(node, inputs, 2 * i + 3) }));
      const [a, b] = [at(node, inputs, 0), at(node, inputs, 1)];
      return { op: "matmul", a, b, shape, dtype, ...(plus && { plus }), ...(node.isRounded && { isRounded: true }) };
    }
    case "select":
      return { op: "select", condition: at(node, inputs, 0), a: at(node, inputs, 1), b: at(node, inputs, 2), shape, dtype };
    case "gather":
      return { ...node, x: at(node, inputs, 0), indices: at(node, inputs, 1) };
    case "dynamicSlice":
      return { ...node, x: at(node, inputs, 0), starts: at(node, inputs, 1) };
    case "dynamicUpdateSlice":
      return { ...node, x: at(node, inputs, 0), update: at(node, inputs, 1), starts: at(node, inputs, 2) };
    case "scatterAdd":
      return { ...node, indices: at(node, inputs, 0), updates: at(node, inputs, 1) };
    case "composite":
      return { ...node, inputs };
    case "output":
      return { op: "output", of: at(node, inputs, 0) as Node & { op: "composite" }, index: node.index, shape, dtype };
  }
}

function at(node: Node, inputs: readonly Node[], index: number): Node {
  const input = inputs[index];
  if (!input) throw new Error(`withInputs: ${node.op} lacks input ${index}.`);
  return input;
}

/** Every node that the roots need, inputs before users. Iterative, so that deep graphs do not exhaust the stack. */
export function topological(roots: readonly Node[], inputs: (node: Node) => readonly Node[] = inputsOf): Node[] {
  const order: Node[] = [];
  const seen = new Set<Node>();
  /** Nodes that are entered, the inputs of each, and how many of these were. */
  const nodes: Node[] = [];
  const given: (readonly Node[])[] = [];
  const next: number[] = [];
  const enter = (node: Node): void => {
    if (seen.has(node)) return;
    seen.add(node);
    const its = inputs(node);
    if (its.length === 0) {
      order.push(node);
      return;
    }
    nodes.push(node);
    given.push(its);
    next.push(0);
  };
  for (const root of roots) {
    enter(root);
    while (nodes.length > 0) {
      const top = nodes.length - 1;
      const its = given[top] as readonly Node[];
      const at = next[top] as number;
      if (at < its.length) {
        next[top] = at + 1;
        enter(its[at] as Node);
      } else {
        order.push(nodes.pop() as Node);
        given.pop();
        next.pop();
      }
    }
  }
  return order;
}
