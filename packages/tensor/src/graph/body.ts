import { dtypeBytes } from "../tensor/dtype.js";
import { type Shape, sameShape, sizeOf } from "../tensor/shape.js";
import { compositeDefinition } from "./composites.js";
import type { Device } from "./device.js";
import { inputsOf, type Node, topological, withInputs } from "./node.js";
import { Tensor } from "./tensor.js";

/**
 * An elementwise function inside a composite: a graph over `argument` nodes. Argument 0 is the element that the composite computes (a score,
 * a logit), the others are tensors that the function captured and that are further inputs of the composite.
 */
export interface RecordedBody {
  readonly body: Node;
  /** In the order of arguments 1, 2, …. */
  readonly captures: readonly Node[];
}

/** What a position may go through and still be computed anew for each element: nothing but counting and comparing. */
const cheap: ReadonlySet<string> = new Set(["add", "sub", "mul", "neg", "abs", "max", "min", "lt", "le", "eq", "and", "or", "not"]);
/** What is made of positions by more than that, and broadcast to so many times its size, is captured. */
const leastRepeats = 16;

/**
 * The function behind a tensor that was computed from argument 0 and from positions, which were made for it, by ordinary operations; null
 * where it is not elementwise in the argument, so that no kernel can compute it on the way: reductions and views, narrow roundings,
 * products. What depends on neither is captured as it is, so that gradients find it.
 */
export function recordBody({ node: root, device }: Tensor, positions: readonly Tensor[] = []): RecordedBody | null {
  const order = topological([root], (node) => (outside.has(node) ? [] : inputsOf(node)));
  const places = new Set(positions.map(({ node }) => node));
  const byElement = new Set<Node>();
  const byPosition = new Set<Node>(places);
  const constant = new Set<Node>();
  for (const node of order) {
    const inputs = inputsOf(node);
    if (node.op === "const" || isConstant(node, constant)) constant.add(node);
    else if (node.op === "argument" || inputs.some((input) => byElement.has(input))) byElement.add(node);
    else if (inputs.some((input) => byPosition.has(input))) byPosition.add(node);
    else if (!places.has(node)) outside.add(node);
  }
  const captured = new Set<Node>();
  const isCaptured = (node: Node): boolean => !(byElement.has(node) || constant.has(node) || (byPosition.has(node) && isInline(node)));
  const inputs = (node: Node): readonly Node[] => {
    if (isCaptured(node)) captured.add(node);
    else if (node.op === "expand" && !byElement.has(node) && isWorthKeeping(node)) captured.add(node.x);
    return captured.has(node) ? [] : inputsOf(node);
  };
  const captures: Node[] = [];
  const made = new Map<Node, Node>();
  const handle = (node: Node): Tensor => new Tensor(made.get(node) as Node, device);
  for (const node of topological([root], inputs)) {
    if (captured.has(node)) {
      made.set(node, { op: "argument", index: captures.push(node), shape: node.shape, dtype: node.dtype });
      continue;
    }
    if (byElement.has(node) && (!isInline(node) || movesElements(node))) return null;
    if (node.op === "composite") continue;
    if (node.op === "output") {
      const results = compositeDefinition(node.of.name).decompose(node.of.inputs.map(handle), node.of.attributes);
      made.set(node, (results[node.index] as Tensor).node);
    } else {
      const now = inputsOf(node).map((input) => made.get(input) as Node);
      made.set(node, withInputs(node, now));
    }
  }
  return { body: made.get(root) as Node, captures };
}

/** Nodes that depend on no argument and no position of a body. */
const outside = new WeakSet<Node>();

/** Argument 0 of a body that is being recorded: f32 elements without values. */
export function argument(shape: Shape, device: Device): Tensor {
  return new Tensor({ op: "argument", index: 0, shape, dtype: "f32" }, device);
}

/**
 * A body with tensors in place of its arguments. Where axes of the body have size 1, the element's may be longer: the function is the same
 * for all of them.
 */
export function applyBody(body: Node, [element, ...captures]: readonly Tensor[]): Tensor {
  if (!element) throw new Error("applyBody: a body needs its argument.");
  const { shape, device } = element;
  const made = new Map<Node, Node>();
  const dependent = new Set<Node>();
  const long = (node: Node): Node => new Tensor(node, device).expand(shape).node;
  for (const node of topological([body])) {
    const inputs = inputsOf(node);
    if (node.op === "argument") {
      const given = node.index === 0 ? element : captures[node.index - 1];
      if (!given) throw new Error(`applyBody: argument ${node.index} is missing.`);
      if (node.index === 0) dependent.add(node);
      made.set(node, given.node);
    } else if (inputs.some((input) => dependent.has(input))) {
      // Elementwise, or it would not have been recorded; all its operands but what it gathers from have its shape.
      const now = inputs.map((input) => {
        const own = made.get(input) as Node;
        return dependent.has(input) || !sameShape(input.shape, body.shape) ? own : long(own);
      });
      dependent.add(node);
      made.set(node, { ...withInputs(node, now), shape });
    } else {
      made.set(
        node,
        withInputs(
          node,
          inputs.map((input) => made.get(input) as Node),
        ),
      );
    }
  }
  const result = made.get(body) as Node;
  return new Tensor(dependent.has(body) ? result : long(result), device);
}

/** The node of a body's argument 0; null where the body does not depend on it. */
export function bodyArgument(body: Node): Node | null {
  return topological([body]).find((node) => node.op === "argument" && node.index === 0) ?? null;
}

/** Made of numbers alone. A constant that was broadcast is no number: a gradient may be asked for. */
function isConstant(node: Node, constant: ReadonlySet<Node>): boolean {
  const inputs = inputsOf(node);
  if (inputs.length === 0 || !isInline(node) || !inputs.every((input) => constant.has(input))) return false;
  return !(node.op === "expand" && sizeOf(node.x.shape) > 1);
}

/** Computed for each element inside the kernel; everything else is captured. */
function isInline(node: Node): boolean {
  switch (node.op) {
    case "const":
    case "iota":
    case "argument":
    case "random":
    case "unary":
    case "binary":
    case "select":
    case "detach":
    case "reshape":
    case "permute":
    case "expand":
    case "slice":
    case "gather":
      return true;
    case "cast":
      // Rounding to a narrow type must not be optimised away.
      return dtypeBytes[node.dtype] === 4 || node.dtype === "bool" || node.dtype === node.x.dtype;
    case "composite":
      return compositeDefinition(node.name).isElementwise === true;
    case "output":
      return compositeDefinition(node.of.name).isElementwise === true;
    default:
      return false;
  }
}

/** True where an element of the node need not be the same element of its input. */
function movesElements(node: Node): boolean {
  switch (node.op) {
    case "reshape":
    case "expand":
      return !sameShape(node.shape, node.x.shape);
    case "gather":
      return !sameShape(node.shape, node.indices.shape);
    case "permute":
    case "slice":
    case "random":
      return true;
    default:
      return false;
  }
}

/** True for what was made of positions by costly functions, and is repeated. */
function isWorthKeeping({ shape, x }: Node & { op: "expand" }): boolean {
  if (sizeOf(x.shape) * leastRepeats > sizeOf(shape)) return false;
  return topological([x]).some((node) => (node.op === "unary" || node.op === "binary") && !cheap.has(node.kind));
}
