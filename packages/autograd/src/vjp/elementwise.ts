import { type BinaryKind, exp, type Node, pow, sign, type Tensor, type UnaryKind } from "@lowrank/tensor";
import { handle, type NodeOf, type Rule } from "./rule.js";

/** dL/dx of y = f(x), from x, y and dL/dy; null where the derivative is 0 (almost) everywhere. */
type UnaryRule = ((x: Tensor, y: Tensor, dy: Tensor) => Tensor) | null;

const unaryRules = {
  neg: (_x, _y, dy) => dy.neg(),
  // 0 at 0, as torch.
  abs: (x, _y, dy) => dy.mul(sign(x)),
  exp: (_x, y, dy) => dy.mul(y),
  log: (x, _y, dy) => dy.div(x),
  sqrt: (_x, y, dy) => dy.div(y).mul(0.5),
  sin: (x, _y, dy) => dy.mul(x.cos()),
  cos: (x, _y, dy) => dy.mul(x.sin()).neg(),
  tanh: (_x, y, dy) => dy.sub(dy.mul(y).mul(y)),
  erf: (x, _y, dy) => dy.mul(exp(x.mul(x).neg())).mul(2 / Math.sqrt(Math.PI)),
  floor: null,
  not: null,
} as const satisfies Record<UnaryKind, UnaryRule>;

/** dL/da and dL/db of y = f(a, b); `constant` is the other operand's value where it is one number. */
interface BinaryRule {
  readonly a: (a: Tensor, b: Tensor, y: Tensor, dy: Tensor, constant: number | null) => Tensor;
  readonly b: (a: Tensor, b: Tensor, y: Tensor, dy: Tensor, constant: number | null) => Tensor;
}

/** dy where `chosen` is the larger (or smaller), half of it at ties, as torch.maximum. */
function extremum(wins: Tensor, ties: Tensor, dy: Tensor): Tensor {
  return wins.where(dy, ties.where(dy.mul(0.5), 0));
}

const binaryRules = {
  add: { a: (_a, _b, _y, dy) => dy, b: (_a, _b, _y, dy) => dy },
  sub: { a: (_a, _b, _y, dy) => dy, b: (_a, _b, _y, dy) => dy.neg() },
  mul: { a: (_a, b, _y, dy) => dy.mul(b), b: (a, _b, _y, dy) => dy.mul(a) },
  // Of y = 1 / b it is -y², with no second division.
  div: { a: (_a, b, _y, dy) => dy.div(b), b: (_a, b, y, dy, constant) => (constant === 1 ? dy.mul(y).mul(y) : dy.mul(y).div(b)).neg() },
  // y = a − b · trunc(a / b), and trunc(a / b) = (a − y) / b.
  mod: { a: (_a, _b, _y, dy) => dy, b: (a, b, y, dy) => dy.mul(y.sub(a)).div(b) },
  // d aᵇ/da = b aᵇ⁻¹ (0 for b = 0, whatever a is); d aᵇ/db = aᵇ ln a (0 at a = 0), as torch.pow.
  pow: {
    a: (a, b, _y, dy, constant) => {
      if (constant === 0) return dy.mul(0);
      if (constant !== null) return dy.mul(pow(a, constant - 1)).mul(constant);
      return b.equal(0).where(0, dy.mul(b).mul(pow(a, b.sub(1))));
    },
    b: (a, _b, y, dy) => a.equal(0).where(0, dy.mul(y).mul(a.equal(0).where(1, a).log())),
  },
  // Against a constant as torch.relu (0 at max(x, 0) = 0) and torch.clamp (1 at the bound); ties of two tensors share.
  max: {
    a: (a, b, _y, dy, constant) =>
      constant === null ? extremum(b.less(a), a.equal(b), dy) : (constant === 0 ? b.less(a) : b.lessEqual(a)).where(dy, 0),
    b: (a, b, _y, dy) => extremum(a.less(b), a.equal(b), dy),
  },
  min: {
    a: (a, b, _y, dy, constant) => (constant === null ? extremum(a.less(b), a.equal(b), dy) : a.lessEqual(b).where(dy, 0)),
    b: (a, b, _y, dy) => extremum(b.less(a), a.equal(b), dy),
  },
  lt: null,
  le: null,
  eq: null,
  and: null,
  or: null,
  xor: null,
  shl: null,
  shr: null,
} as const satisfies Record<BinaryKind, BinaryRule | null>;

/** The one number that a node holds everywhere, if it is such a constant. */
function constantOf(node: Node): number | null {
  if (node.op === "reshape" || node.op === "expand") return constantOf(node.x);
  return node.op === "const" ? node.value : null;
}

export const unary: Rule<"unary"> = (node, dy, flow) => {
  const rule: UnaryRule = unaryRules[node.kind];
  if (rule) flow.into(node.x, () => rule(handle(node.x, flow), handle(node, flow), dy));
};

export const binary: Rule<"binary"> = (node, dy, flow) => {
  const rule: BinaryRule | null = binaryRules[node.kind];
  if (!rule) return;
  const operands = (): [Tensor, Tensor, Tensor, Tensor] => [handle(node.a, flow), handle(node.b, flow), handle(node, flow), dy];
  flow.into(node.a, () => rule.a(...operands(), constantOf(node.b)));
  // max(c, x) and min(c, x) are max(x, c) and min(x, c).
  const constant = constantOf(node.a);
  const isMirrored = constant !== null && (node.kind === "max" || node.kind === "min");
  flow.into(node.b, () =>
    isMirrored ? rule.a(handle(node.b, flow), handle(node.a, flow), handle(node, flow), dy, constant) : rule.b(...operands(), constant),
  );
};

export const select: Rule<"select"> = (node, dy, flow) => {
  flow.into(node.a, () => handle(node.condition, flow).where(dy, 0));
  flow.into(node.b, () => handle(node.condition, flow).where(0, dy));
};

/** Between float types the gradient passes as it is, in f32; integers and truth values have none. */
export const cast: Rule<"cast"> = (node: NodeOf<"cast">, dy, flow) => flow.into(node.x, () => dy);
