import { type BinaryKind, binaryKinds, binaryResult } from "../elementwise/binary.js";
import { wrapped } from "../elementwise/unary.js";
import type { Node, UnaryKind } from "../graph/node.js";
import { checkSameDevice, Tensor } from "../graph/tensor.js";
import { type ComputeDType, checkDType, computeDType, type DType, isFloat, promote } from "../tensor/dtype.js";
import { ShapeError } from "../tensor/errors.js";
import { broadcastShapes, type Shape, sameShape } from "../tensor/shape.js";
import { expand } from "./movement.js";

/** What elementwise functions take: numbers are scalars of the other operand's type where that has no fraction or sign to lose. */
export type TensorLike = Tensor | number;

/** The node in its compute dtype: stored-only types are widened by an explicit cast. */
export function lifted(x: Tensor, dtype: ComputeDType = computeDType(x.dtype)): Node {
  return x.dtype === dtype ? x.node : { op: "cast", x: x.node, shape: x.shape, dtype };
}

/** The type of a number beside an operand: i32 beside bool, f32 where it has a fraction. Throws ShapeError for an integer beyond 32 bits. */
function numberDType(value: number, other: DType): ComputeDType {
  const type = computeDType(other);
  if (type === "f32" || !Number.isInteger(value)) return "f32";
  const own = type === "u32" && value >= 0 ? "u32" : "i32";
  if (value !== wrapped(value, own)) {
    throw new ShapeError(`${value} does not fit ${own}, the type of a number beside ${other}. Cast the tensor with .cast("f32") first.`);
  }
  return own;
}

/** A scalar constant on the device of `like`. */
export function scalar(value: number, like: Tensor, dtype: ComputeDType = numberDType(value, like.dtype)): Tensor {
  return new Tensor({ op: "const", value, shape: [], dtype }, like.device);
}

function operands(what: string, a: TensorLike, b: TensorLike): [Tensor, Tensor] {
  if (typeof a === "number") {
    if (typeof b === "number") throw new TypeError(`${what}: one operand must be a tensor.`);
    return [scalar(a, b), b];
  }
  if (typeof b === "number") return [a, scalar(b, a)];
  if (!(a instanceof Tensor && b instanceof Tensor && a.device === b.device)) checkSameDevice(what, a, b);
  return [a, b];
}

const bitwise: ReadonlySet<BinaryKind> = new Set(["and", "or", "xor", "shl", "shr"]);

function binary(kind: BinaryKind, name: string, left: TensorLike, right: TensorLike): Tensor {
  const [a, b] = operands(name, left, right);
  const dtype = promote(a.dtype, b.dtype);
  if (bitwise.has(kind) && dtype === "f32") {
    throw new ShapeError(
      `${name}: needs bool or integer tensors, got ${a.dtype} and ${b.dtype}. Cast them with .cast("i32") or compare first.`,
    );
  }
  // Arithmetic on truth values counts: true + true = 2.
  const type = dtype === "bool" && !bitwise.has(kind) && binaryKinds[kind].result !== "bool" ? "i32" : dtype;
  const shape = broadcastShapes(a.shape, b.shape, name);
  const [x, y] = [operand(left, a, type, shape), operand(right, b, type, shape)];
  return new Tensor({ op: "binary", kind, a: x, b: y, shape, dtype: binaryResult(kind, type) }, a.device);
}

/** An operand in the type and the shape of a result. A number, to which there is no handle, is a constant of that shape from the start. */
function operand(given: TensorLike, like: Tensor, dtype: ComputeDType, shape: Shape): Node {
  if (like.dtype === dtype) {
    if (typeof given === "number") return { op: "const", value: given, shape, dtype };
    if (sameShape(like.shape, shape)) return like.node;
  }
  return expand(new Tensor(lifted(like, dtype), like.device), shape).node;
}

function floatUnary(kind: UnaryKind, x: Tensor): Tensor {
  return new Tensor({ op: "unary", kind, x: lifted(x, "f32"), shape: x.shape, dtype: "f32" }, x.device);
}

/** a + b. Broadcasts; result in the promoted compute dtype. torch.add. */
export const add = (a: TensorLike, b: TensorLike): Tensor => binary("add", "add", a, b);
/** a − b. torch.sub. */
export const sub = (a: TensorLike, b: TensorLike): Tensor => binary("sub", "sub", a, b);
/** a · b, elementwise. torch.mul. */
export const mul = (a: TensorLike, b: TensorLike): Tensor => binary("mul", "mul", a, b);
/** a / b. Integers divide to f32, as torch.div does; `intDivide` keeps integers. */
export function div(a: TensorLike, b: TensorLike): Tensor {
  const asFloat = (x: TensorLike): TensorLike => (typeof x === "number" ? x : x.cast("f32"));
  return binary("div", "div", asFloat(a), asFloat(b));
}
/** Integer quotient truncated toward zero; for f32 the floor of the quotient. */
export function intDivide(a: TensorLike, b: TensorLike): Tensor {
  const quotient = binary("div", "intDivide", a, b);
  return isFloat(quotient.dtype) ? floor(quotient) : quotient;
}
/** Remainder with the sign of a (C's fmod and %). torch.fmod. */
export const mod = (a: TensorLike, b: TensorLike): Tensor => binary("mod", "mod", a, b);
/**
 * a to the power b, of the type that a · b has: of integers an integer, which wraps, and where b is negative the quotient 1 / aᵇ, truncated
 * (0 but for a = ±1). Throws ShapeError for an integer tensor and a negative number, as torch.pow does.
 */
export function pow(a: TensorLike, b: TensorLike): Tensor {
  if (typeof a !== "number" && typeof b === "number" && b < 0 && Number.isInteger(b) && !isFloat(a.dtype)) {
    throw new ShapeError(`pow: ${a.dtype} to the power ${b} is not an integer. Cast the tensor with .cast("f32") first.`, [a.shape]);
  }
  return b === 2 ? mul(a, a) : binary("pow", "pow", a, b);
}
/** The larger of a and b; NaN if either is. torch.maximum. */
export const maximum = (a: TensorLike, b: TensorLike): Tensor => binary("max", "maximum", a, b);
/** The smaller of a and b; NaN if either is. torch.minimum. */
export const minimum = (a: TensorLike, b: TensorLike): Tensor => binary("min", "minimum", a, b);
/** a < b, bool. */
export const less = (a: TensorLike, b: TensorLike): Tensor => binary("lt", "less", a, b);
/** a ≤ b, bool. */
export const lessEqual = (a: TensorLike, b: TensorLike): Tensor => binary("le", "lessEqual", a, b);
/** a > b, bool. */
export const greater = (a: TensorLike, b: TensorLike): Tensor => binary("lt", "greater", b, a);
/** a ≥ b, bool. */
export const greaterEqual = (a: TensorLike, b: TensorLike): Tensor => binary("le", "greaterEqual", b, a);
/** a = b, bool; false where either is NaN. */
export const equal = (a: TensorLike, b: TensorLike): Tensor => binary("eq", "equal", a, b);
/** a ≠ b, bool. */
export const notEqual = (a: TensorLike, b: TensorLike): Tensor => logicalNot(equal(a, b));
/** a and b: logical for bool, bitwise for integers. */
export const and = (a: TensorLike, b: TensorLike): Tensor => binary("and", "and", a, b);
/** a or b: logical for bool, bitwise for integers. */
export const or = (a: TensorLike, b: TensorLike): Tensor => binary("or", "or", a, b);
/** Exclusive or: logical for bool, bitwise for integers. */
export const xor = (a: TensorLike, b: TensorLike): Tensor => binary("xor", "xor", a, b);
/** Bits of a moved left by b. Integers only. */
export const shiftLeft = (a: TensorLike, b: TensorLike): Tensor => binary("shl", "shiftLeft", a, b);
/** Bits of a moved right by b: arithmetic for i32, logical for u32. */
export const shiftRight = (a: TensorLike, b: TensorLike): Tensor => binary("shr", "shiftRight", a, b);

/** −x. */
export function neg(x: Tensor): Tensor {
  const type = computeDType(x.dtype) === "bool" ? "i32" : computeDType(x.dtype);
  return new Tensor({ op: "unary", kind: "neg", x: lifted(x, type), shape: x.shape, dtype: type }, x.device);
}
/** |x|. */
export function abs(x: Tensor): Tensor {
  const type = computeDType(x.dtype) === "bool" ? "i32" : computeDType(x.dtype);
  return new Tensor({ op: "unary", kind: "abs", x: lifted(x, type), shape: x.shape, dtype: type }, x.device);
}
/** not x, bool; numbers count as true unless 0. */
export function logicalNot(x: Tensor): Tensor {
  return new Tensor({ op: "unary", kind: "not", x: lifted(x.cast("bool"), "bool"), shape: x.shape, dtype: "bool" }, x.device);
}
/** e^x, f32. */
export const exp = (x: Tensor): Tensor => floatUnary("exp", x);
/** Natural logarithm, f32. */
export const log = (x: Tensor): Tensor => floatUnary("log", x);
/** √x, f32. */
export const sqrt = (x: Tensor): Tensor => floatUnary("sqrt", x);
/** sin x, radians, f32. */
export const sin = (x: Tensor): Tensor => floatUnary("sin", x);
/** cos x, radians, f32. */
export const cos = (x: Tensor): Tensor => floatUnary("cos", x);
/** tanh x, f32. */
export const tanh = (x: Tensor): Tensor => floatUnary("tanh", x);
/** Gauss error function, f32. */
export const erf = (x: Tensor): Tensor => floatUnary("erf", x);
/** Largest whole number ≤ x, f32. */
export const floor = (x: Tensor): Tensor => floatUnary("floor", x);
/** Smallest whole number ≥ x, f32. */
export const ceil = (x: Tensor): Tensor => neg(floor(neg(x)));
/** 1 / √x. torch.rsqrt. */
export const rsqrt = (x: Tensor): Tensor => div(1, sqrt(x));
/** 1 / x. */
export const reciprocal = (x: Tensor): Tensor => div(1, x);
/** x². */
export const square = (x: Tensor): Tensor => mul(x, x);
/** −1, 0 or 1. */
export const sign = (x: Tensor): Tensor => sub(greater(x, 0).cast(computeDType(x.dtype)), less(x, 0).cast(computeDType(x.dtype)));
/** True where x is NaN. */
export const isNan = (x: Tensor): Tensor => notEqual(x, x);
/** x held between low and high. torch.clamp. */
export const clamp = (x: Tensor, low: number, high: number): Tensor => minimum(maximum(x, low), high);

/** `a` where the condition holds, else `b`. Broadcasts all three. torch.where. */
export function where(condition: Tensor, a: TensorLike, b: TensorLike): Tensor {
  const like = typeof a !== "number" ? a : typeof b !== "number" ? b : condition.cast("f32");
  const x = typeof a === "number" ? scalar(a, like) : a;
  const y = typeof b === "number" ? scalar(b, like) : b;
  checkSameDevice("where", condition, x, y);
  const dtype = promote(x.dtype, y.dtype);
  const shape = broadcastShapes(condition.shape, broadcastShapes(x.shape, y.shape, "where"), "where");
  const spread = (t: Tensor, type: ComputeDType): Node => expand(new Tensor(lifted(t, type), t.device), shape).node;
  const chosen = spread(condition.cast("bool"), "bool");
  return new Tensor({ op: "select", condition: chosen, a: spread(x, dtype), b: spread(y, dtype), shape, dtype }, condition.device);
}

/** The same values stored as another dtype; f32 → integer truncates toward zero, anything → bool is ≠ 0. */
export function cast(x: Tensor, dtype: DType): Tensor {
  checkDType(dtype, "cast");
  if (x.dtype === dtype) return x;
  if (x.node.op === "const" && sameShape(x.shape, []) && isFloat(dtype) && dtype === "f32") {
    return new Tensor({ ...x.node, value: wrapped(x.node.value, computeDType(x.dtype)), dtype }, x.device);
  }
  return new Tensor({ op: "cast", x: x.node, shape: x.shape, dtype }, x.device);
}
