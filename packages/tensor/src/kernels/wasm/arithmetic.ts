import type { ComputeDType } from "../../tensor/dtype.js";
import type { Expr } from "../expr.js";
import { type Code, extractLane, type FunctionBuilder, f32, f32x4, i32, i32x4, op, replaceLane } from "./assembler.js";
import { absolute, erf, exp, log, negated, tanh } from "./math.js";
import type { ScalarMath } from "./scalar-math.js";

/** User arithmetic or index arithmetic: the instructions are the same. */
type Binary = Expr & { op: "binary" | "index" };

/** Lanes of a vector that count. */
export type Lanes = 4 | 1;

/** Writes the operations of expressions on operands that are written already, as scalars or as vectors of four lanes. */
export class Arithmetic {
  constructor(
    readonly f: FunctionBuilder,
    readonly scalarMath: ScalarMath,
  ) {}

  scalarUnary(kind: (Expr & { op: "unary" })["kind"], dtype: ComputeDType, x: Code): Code {
    switch (kind) {
      case "neg":
        return dtype === "f32" ? op("f32.neg", x) : op("i32.sub", i32(0), x);
      case "abs": {
        if (dtype === "f32") return op("f32.abs", x);
        if (dtype !== "i32") return x;
        return extractLane("i32", 0, op("i32x4.abs", op("i32x4.splat", x)));
      }
      case "sqrt":
      case "floor":
        return op(`f32.${kind}`, x);
      case "sin":
      case "cos":
        return this.scalarMath.call(kind, x);
      case "not":
        return op("i32.eqz", x);
      case "exp":
      case "log":
      case "tanh":
      case "erf":
        return extractLane("f32", 0, this.#vectorFunction(kind, op("f32x4.splat", x)));
    }
  }

  #vectorFunction(kind: "exp" | "log" | "tanh" | "erf", x: Code): Code {
    return { exp, log, tanh, erf }[kind](this.f, x);
  }

  scalarBinary(expr: Binary, a: Code, b: Code): Code {
    const dtype = expr.a.dtype;
    const { kind } = expr;
    if (dtype === "f32") {
      switch (kind) {
        case "add":
        case "sub":
        case "mul":
        case "div":
        case "max":
        case "min":
        case "lt":
        case "le":
        case "eq":
          return op(`f32.${kind}`, a, b);
        case "pow":
        case "mod":
          return this.scalarMath.call(kind, a, b);
        case "and":
        case "or":
        case "xor":
        case "shl":
        case "shr":
          throw new Error(`Kernel: ${kind} is not defined for f32.`);
      }
    }
    const isSigned = dtype === "i32";
    switch (kind) {
      case "add":
      case "sub":
      case "mul":
      case "and":
      case "or":
      case "xor":
      case "eq":
        return op(`i32.${kind}`, a, b);
      case "shl":
        return op("i32.shl", a, b);
      case "shr":
        return op(isSigned ? "i32.shr_s" : "i32.shr_u", a, b);
      case "lt":
        return op(isSigned ? "i32.lt_s" : "i32.lt_u", a, b);
      case "le":
        return op(isSigned ? "i32.le_s" : "i32.le_u", a, b);
      case "max":
      case "min": {
        const x = this.f.let("i32", a);
        const y = this.f.let("i32", b);
        const isFirst = op(kind === "max" ? (isSigned ? "i32.gt_s" : "i32.gt_u") : isSigned ? "i32.lt_s" : "i32.lt_u", x.get, y.get);
        return [x.get, y.get, isFirst, op("select")];
      }
      case "div":
      case "mod":
        return this.#integerDivision(kind, isSigned, expr.b, a, b);
      case "pow":
        return this.scalarMath.call(isSigned ? "powInt" : "powUint", a, b);
    }
  }

  /** Truncating division where the machine would trap: by 0 it gives 0, and the lowest number by -1 gives itself. */
  #integerDivision(kind: "div" | "mod", isSigned: boolean, divisor: Expr, a: Code, b: Code): Code {
    const instruction = kind === "div" ? (isSigned ? "i32.div_s" : "i32.div_u") : isSigned ? "i32.rem_s" : "i32.rem_u";
    if (divisor.op === "const" && divisor.value !== 0 && divisor.value !== -1) return op(instruction, a, b);
    const x = this.f.let("i32", a);
    const y = this.f.let("i32", b);
    const isMinusOne = isSigned ? op("i32.eq", y.get, i32(-1)) : i32(0);
    const isUnsafe = op("i32.or", op("i32.eqz", y.get), isMinusOne);
    const safe = op(instruction, x.get, [i32(1), y.get, isUnsafe, op("select")]);
    const negated = kind === "div" ? op("i32.sub", i32(0), x.get) : i32(0);
    return [i32(0), [negated, safe, isMinusOne, op("select")], op("i32.eqz", y.get), op("select")];
  }

  vectorUnary(kind: (Expr & { op: "unary" })["kind"], dtype: ComputeDType, x: Code, lanes: Lanes): Code {
    switch (kind) {
      case "neg":
        return dtype === "f32" ? negated(x) : op("i32x4.neg", x);
      case "abs":
        return dtype === "f32" ? absolute(x) : dtype === "i32" ? op("i32x4.abs", x) : x;
      case "sqrt":
      case "floor":
        return op(`f32x4.${kind}`, x);
      case "not":
        return op("v128.not", x);
      case "sin":
      case "cos":
        return this.#perLane("f32", lanes, [x], ([value = []]) => this.scalarMath.call(kind, value));
      case "exp":
      case "log":
      case "tanh":
      case "erf":
        return this.#vectorFunction(kind, x);
    }
  }

  /** `a` and `b` write the operands as vectors; `shift` is `b` as a scalar where it is the same for all lanes, else null. */
  vectorBinary(expr: Binary, a: () => Code, b: () => Code, shift: (() => Code) | null, lanes: Lanes): Code {
    const dtype = expr.a.dtype;
    const { kind } = expr;
    if (dtype === "f32") {
      if (kind === "pow" || kind === "mod")
        return this.#perLane("f32", lanes, [a(), b()], ([x = [], y = []]) => this.scalarBinary(expr, x, y));
      if (kind === "and" || kind === "or" || kind === "xor" || kind === "shl" || kind === "shr")
        throw new Error(`Kernel: ${kind} is not defined for f32.`);
      if (kind === "max" || kind === "min") return floatExtremum(expr, kind, a, b);
      return op(`f32x4.${kind}`, a(), b());
    }
    const isSigned = dtype === "i32";
    switch (kind) {
      case "add":
      case "sub":
      case "mul":
      case "eq":
        return op(`i32x4.${kind}`, a(), b());
      case "and":
      case "or":
      case "xor":
        return op(`v128.${kind}`, a(), b());
      case "lt":
        return op(isSigned ? "i32x4.lt_s" : "i32x4.lt_u", a(), b());
      case "le":
        return op(isSigned ? "i32x4.le_s" : "i32x4.le_u", a(), b());
      case "max":
        return op(isSigned ? "i32x4.max_s" : "i32x4.max_u", a(), b());
      case "min":
        return op(isSigned ? "i32x4.min_s" : "i32x4.min_u", a(), b());
      case "shl":
      case "shr":
        if (shift) return op(kind === "shl" ? "i32x4.shl" : isSigned ? "i32x4.shr_s" : "i32x4.shr_u", a(), shift());
        return this.#perLane("i32", lanes, [a(), b()], ([x = [], y = []]) => this.scalarBinary(expr, x, y));
      case "div":
      case "mod":
      case "pow":
        return this.#perLane("i32", lanes, [a(), b()], ([x = [], y = []]) => this.scalarBinary(expr, x, y));
    }
  }

  /** Computes lane by lane what has no vector instruction. */
  #perLane(type: "i32" | "f32", lanes: Lanes, operands: readonly Code[], make: (values: readonly Code[]) => Code): Code {
    const vectors = operands.map((operand) => this.f.let("v128", operand));
    const result = this.f.local("v128");
    for (let lane = 0; lane < lanes; lane++) {
      const value = make(vectors.map((vector) => extractLane(type, lane, vector.get)));
      this.f.emit(result.set(lane === 0 ? op(`${type}x4.splat`, value) : replaceLane(type, lane, result.get, value)));
    }
    return result.get;
  }
}

/**
 * Against a constant other than 0 (of which there are two), the instruction that simply compares will do: with the constant second it
 * keeps a NaN. The one that looks for NaN and the sign of 0 by itself takes seven on x86.
 */
function floatExtremum(expr: Binary, kind: "max" | "min", a: () => Code, b: () => Code): Code {
  const isPlain = (x: Expr): boolean => x.op === "const" && x.value !== 0 && !Number.isNaN(x.value);
  if (isPlain(expr.b)) return op(`f32x4.p${kind}`, a(), b());
  if (isPlain(expr.a)) return op(`f32x4.p${kind}`, b(), a());
  return op(`f32x4.${kind}`, a(), b());
}

/** Four equal lanes; a bool becomes a mask. */
export function splat(dtype: ComputeDType, value: Code): Code {
  if (dtype === "f32") return op("f32x4.splat", value);
  return op("i32x4.splat", dtype === "bool" ? op("i32.sub", i32(0), value) : value);
}

export function scalarCast(from: ComputeDType, to: ComputeDType, x: Code): Code {
  if (from === "f32") {
    if (to === "bool") return op("f32.ne", x, f32(0));
    return op(to === "i32" ? "i32.trunc_sat_f32_s" : "i32.trunc_sat_f32_u", x);
  }
  if (to === "f32") return op(from === "i32" ? "f32.convert_i32_s" : "f32.convert_i32_u", x);
  return to === "bool" ? op("i32.ne", x, i32(0)) : x;
}

export function vectorCast(from: ComputeDType, to: ComputeDType, x: Code): Code {
  if (from === "f32") {
    if (to === "bool") return op("f32x4.ne", x, f32x4(0));
    return op(to === "i32" ? "i32x4.trunc_sat_f32x4_s" : "i32x4.trunc_sat_f32x4_u", x);
  }
  if (from === "bool") return op("v128.and", x, to === "f32" ? f32x4(1) : i32x4(1));
  if (to === "f32") return op(from === "i32" ? "f32x4.convert_i32x4_s" : "f32x4.convert_i32x4_u", x);
  return to === "bool" ? op("i32x4.ne", x, i32x4(0)) : x;
}
