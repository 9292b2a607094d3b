import type { BinaryKind } from "../../elementwise/binary.js";
import { type ReduceKind, reduceKinds } from "../../elementwise/reduce.js";
import type { UnaryKind } from "../../elementwise/unary.js";
import type { ComputeDType } from "../../tensor/dtype.js";
import { type Expr, isIndex } from "../expr.js";
import type { ProgramFunctions } from "./functions.js";
import { literal, valueType } from "./literals.js";

/** User arithmetic or index arithmetic: the operators are the same. */
export type Binary = Expr & { op: "binary" | "index" };

/** What an operation is printed for: operands of one dtype, one element or four lanes. */
export interface Operands {
  readonly dtype: ComputeDType;
  readonly isVector: boolean;
  readonly functions: ProgramFunctions;
}

export function zeroCode(dtype: ComputeDType, isVector: boolean): string {
  const zero = literal(dtype, 0);
  return isVector ? `${valueType(dtype, true)}(${zero})` : zero;
}

/** A call of a function of the program, which takes each lane by itself where it branches. */
function call(name: string, x: string, y: string, { functions, isVector, dtype }: Operands): string {
  const called = functions.use(name, isVector);
  if (!isVector || !functions.isScalar(name)) return `${called}(${x}, ${y})`;
  return `${valueType(dtype, true)}(${["x", "y", "z", "w"].map((lane) => `${called}(${x}.${lane}, ${y}.${lane})`).join(", ")})`;
}

const own =
  (name: string) =>
  (x: string, { functions, isVector }: Operands): string =>
    `${functions.use(name, isVector)}(${x})`;
const builtIn =
  (name: string) =>
  (x: string): string =>
    `${name}(${x})`;
const circular =
  (shift: 0 | 1) =>
  (x: string, { functions, isVector }: Operands): string =>
    `${functions.use("circular", isVector)}(${x}, ${shift})`;

/** WGSL of each unary kind. */
export const unaryCode: Readonly<Record<UnaryKind, (x: string, on: Operands) => string>> = {
  neg: (x, { dtype, isVector }) => (dtype === "u32" ? `${zeroCode(dtype, isVector)} - ${x}` : `-${x}`),
  abs: builtIn("abs"),
  exp: own("exponential"),
  log: own("logarithm"),
  sqrt: builtIn("sqrt"),
  sin: circular(0),
  cos: circular(1),
  tanh: own("tangent"),
  erf: own("errorFunction"),
  floor: builtIn("floor"),
  not: (x) => `!${x}`,
};

type BinaryCode = (x: string, y: string, on: Operands, expr: Binary) => string;

const extremum =
  (kind: "max" | "min") =>
  (x: string, y: string, on: Operands): string => {
    if (on.dtype === "bool") return `(${x}) ${kind === "max" ? "|" : "&"} (${y})`;
    return on.dtype === "f32" ? call(kind === "max" ? "maximum" : "minimum", x, y, on) : `${kind}(${x}, ${y})`;
  };

const shift =
  (sign: "<<" | ">>"): BinaryCode =>
  (x, y, { isVector }) =>
    `${x} ${sign} ${isVector ? `(vec4u(${y}) & vec4u(31u))` : `(u32(${y}) & 31u)`}`;

/** WGSL of each binary kind. */
export const binaryCode: Readonly<Record<BinaryKind, BinaryCode>> = {
  add: (x, y, { dtype }) => (dtype === "bool" ? `(${x}) | (${y})` : `${x} + ${y}`),
  sub: (x, y, { dtype }) => (dtype === "bool" ? `(${x}) != (${y})` : `${x} - ${y}`),
  mul: (x, y, { dtype }) => (dtype === "bool" ? `(${x}) & (${y})` : `${x} * ${y}`),
  div(x, y, on, expr) {
    if (on.dtype !== "f32") return integerDivision("div", x, y, on, expr);
    if (expr.b.op === "const" && expr.b.value === 0 && expr.a.op !== "const") {
      // Mesa's compiler makes x / 0 zero.
      const infinite = literal("f32", Object.is(expr.b.value, -0) ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY);
      return `${x} * ${infinite}`;
    }
    return `${x} / ${y}`;
  },
  mod: (x, y, on, expr) => (on.dtype === "f32" ? call("remainder", x, y, on) : integerDivision("mod", x, y, on, expr)),
  pow: (x, y, on) => call(on.dtype === "f32" ? "power" : on.dtype === "i32" ? "powerInt" : "powerUint", x, y, on),
  max: extremum("max"),
  min: extremum("min"),
  lt: (x, y, { dtype }) => (dtype === "bool" ? `(!${x}) & (${y})` : `${x} < ${y}`),
  le: (x, y, { dtype }) => (dtype === "bool" ? `(!${x}) | (${y})` : `${x} <= ${y}`),
  eq(x, y, { dtype, isVector }, { a, b }) {
    if (dtype !== "f32" || a !== b) return `${x} == ${y}`;
    // x = x asks for NaN, which compilers may assume there is none of; so the bits are looked at.
    const words = valueType("u32", isVector);
    return `(bitcast<${words}>(${x}) & ${words}(2147483647u)) <= ${words}(2139095040u)`;
  },
  and: (x, y) => `(${x}) & (${y})`,
  or: (x, y) => `(${x}) | (${y})`,
  xor: (x, y, { dtype }) => (dtype === "bool" ? `(${x}) != (${y})` : `(${x}) ^ (${y})`),
  shl: shift("<<"),
  shr: shift(">>"),
};

function integerDivision(kind: "div" | "mod", x: string, y: string, on: Operands, { a, b }: Binary): string {
  const sign = kind === "div" ? "/" : "%";
  if (b.op === "const" && b.value > 0) {
    // Unsigned division by a constant is cheaper, and indices are never negative.
    if (on.dtype !== "i32" || a.op === "const" || !isIndex(a) || a.low < 0) return `${x} ${sign} ${y}`;
    const unsigned = valueType("u32", on.isVector);
    return `${valueType("i32", on.isVector)}(${unsigned}(${x}) ${sign} ${unsigned}(${b.value}u))`;
  }
  // A constant divisor of zero would be refused, so it goes through the function, whose parameters are not constants.
  return call((kind === "div" ? "quotient" : "remainder") + (on.dtype === "i32" ? "Int" : "Uint"), x, y, on);
}

/** What joins two results of a reduction. */
export function combineCode(kind: ReduceKind, x: string, y: string, on: Operands): string {
  const { combine } = reduceKinds[kind];
  return combine === "add" ? `${x} + ${y}` : extremum(combine)(x, y, on);
}

/** The value that a reduction starts from. */
export function identityCode(kind: ReduceKind, dtype: ComputeDType, isVector: boolean): string {
  return `${valueType(dtype, isVector)}(${literal(dtype, reduceKinds[kind].start[dtype])})`;
}
