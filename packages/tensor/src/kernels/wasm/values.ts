import { type ComputeDType, type DType, dtypeBytes } from "../../tensor/dtype.js";
import type { Expr } from "../expr.js";
import type { Slot } from "../kernel.js";
import { substitute } from "../substitute.js";
import type { Analysis } from "./analysis.js";
import { type Code, extractLane, type FunctionBuilder, f32, f32x4, i32, i32x4, type Local, op, replaceLane } from "./assembler.js";
import type { LoopProgram } from "./lower.js";
import { absolute, choose, erf, exp, log, negated, philox, tanh } from "./math.js";
import type { ScalarMath } from "./scalar-math.js";
import { loadLanes, loadScalar, loadVector, storeLanes, storeVector } from "./storage.js";

/** Values already computed at one level of the loop nest. */
export interface Scope {
  readonly scalars: Map<Expr, Local>;
  readonly splats: Map<Expr, Local>;
  /** One map for each unit of four lanes. */
  readonly vectors: Map<Expr, Local>[];
  /** Addresses of accesses by slot and index, and multiples of the inner position by factor. */
  readonly addresses: Map<string, Map<Expr, Local>>;
  readonly offsets: Map<number, Local>;
}

export function newScope(): Scope {
  return { scalars: new Map(), splats: new Map(), vectors: [], addresses: new Map(), offsets: new Map() };
}

/** Where in the loop nest code is being written. */
export interface Position {
  /** Values that do not change along the inner loop, and the buffer in front of that loop where their code goes. */
  readonly row: Scope;
  readonly rowCode: Code[];
  /** Values of one inner step; absent outside the inner loop. */
  readonly step: Scope | null;
  /** The inner variable. */
  readonly inner: Local;
  /** The vector axis' variable at lane 0 of unit 0; the same local as `inner` unless the kernel is turned. */
  readonly vector: Local;
  readonly lanes: 4 | 1;
}

/** Writes the code of expressions, as scalars or as vectors of four lanes, each value once and as far out as it can be. */
export class Values {
  readonly accumulators: Local[][] = [];
  readonly #innerAxis: number;
  readonly #isTurned: boolean;
  readonly #atStart = new Map<Expr, Expr>();

  constructor(
    readonly f: FunctionBuilder,
    readonly program: LoopProgram,
    readonly analysis: Analysis,
    readonly scalarMath: ScalarMath,
    readonly dtypes: (slot: Slot) => DType,
    readonly pointers: ReadonlyMap<Slot, Local>,
    readonly outerVariables: readonly Local[],
  ) {
    this.#innerAxis = program.kernel.outer.length;
    this.#isTurned = program.vectorAxis !== this.#innerAxis;
  }

  /** True when the value differs between lanes. */
  isLanewise(expr: Expr): boolean {
    return this.analysis.dependsOn(expr, this.program.vectorAxis) || (this.#isTurned && this.analysis.usesAccumulator(expr));
  }

  #scopeOf(expr: Expr, at: Position): Scope {
    if (!this.analysis.dependsOn(expr, this.#innerAxis)) return at.row;
    if (!at.step) throw new Error("Values: an inner value was asked for outside the inner loop.");
    return at.step;
  }

  /** Computes a value into a local of its scope, in the scope's own code. */
  #keep(known: Map<Expr, Local>, expr: Expr, scope: Scope, at: Position, type: "i32" | "f32" | "v128", make: () => Code): Code {
    const found = known.get(expr);
    if (found) return found.get;
    const local = this.f.local(type);
    const write = (): void => this.f.emit(local.set(make()));
    if (scope === at.row) this.f.into(at.rowCode, write);
    else write();
    known.set(expr, local);
    return local.get;
  }

  /** A value as a scalar; of a lanewise value, lane 0 of unit 0. */
  scalar(expr: Expr, at: Position): Code {
    if (expr.op === "const") return expr.dtype === "f32" ? f32(expr.value) : i32(expr.value);
    if (expr.op === "variable") {
      if (expr.axis === this.#innerAxis) return at.inner.get;
      if (expr.axis === this.program.vectorAxis) return at.vector.get;
      return this.#outer(expr.axis).get;
    }
    if (expr.op === "accumulator") {
      const local = this.accumulators[expr.index]?.[0];
      if (!local) throw new Error(`Values: accumulator ${expr.index} is not finished.`);
      return local.type === "v128" ? extractLane(expr.dtype === "f32" ? "f32" : "i32", 0, local.get) : local.get;
    }
    const scope = this.#scopeOf(expr, at);
    return this.#keep(scope.scalars, expr, scope, at, expr.dtype === "f32" ? "f32" : "i32", () => this.#makeScalar(expr, at));
  }

  #outer(axis: number): Local {
    const local = this.outerVariables[axis];
    if (!local) throw new Error(`Values: no variable ${axis}.`);
    return local;
  }

  #makeScalar(expr: Exclude<Expr, { op: "const" | "variable" | "accumulator" }>, at: Position): Code {
    const get = (x: Expr): Code => this.scalar(x, at);
    switch (expr.op) {
      case "load":
        return loadScalar(this.f, this.dtypes(expr.slot), this.#elementAddress(expr.slot, get(expr.index)));
      case "unary":
        return this.#scalarUnary(expr.kind, expr.dtype, get(expr.x));
      case "binary":
        return this.#scalarBinary(expr, get(expr.a), get(expr.b));
      case "select":
        return [get(expr.a), get(expr.b), get(expr.condition), op("select")];
      case "cast":
        return scalarCast(expr.x.dtype, expr.dtype, get(expr.x));
      case "random": {
        const word = philox(
          this.f,
          op("i32x4.splat", get(expr.key0)),
          op("i32x4.splat", get(expr.key1)),
          expr.stream,
          op("i32x4.splat", get(expr.index)),
        );
        return extractLane("i32", 0, word);
      }
    }
  }

  #scalarUnary(kind: (Expr & { op: "unary" })["kind"], dtype: ComputeDType, x: Code): Code {
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

  #scalarBinary(expr: Expr & { op: "binary" }, a: Code, b: Code): Code {
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
        default:
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
        throw new Error("Kernel: pow is defined for f32 only.");
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

  /** A value for four lanes (unit `unit` of them). A bool is a mask. */
  vector(expr: Expr, unit: number, at: Position): Code {
    if (expr.op === "const") {
      if (expr.dtype === "f32") return f32x4(expr.value);
      return i32x4(expr.dtype === "bool" ? -expr.value : expr.value);
    }
    const scope = this.#scopeOf(expr, at);
    if (!this.isLanewise(expr)) {
      return this.#keep(scope.splats, expr, scope, at, "v128", () => splat(expr.dtype, this.scalar(expr, at)));
    }
    if (expr.op === "accumulator") {
      const local = this.accumulators[expr.index]?.[unit];
      if (!local) throw new Error(`Values: accumulator ${expr.index} is not finished.`);
      return local.get;
    }
    let known = scope.vectors[unit];
    if (!known) scope.vectors[unit] = known = new Map();
    return this.#keep(known, expr, scope, at, "v128", () => this.#makeVector(expr, unit, at));
  }

  #makeVector(expr: Exclude<Expr, { op: "const" | "accumulator" }>, unit: number, at: Position): Code {
    const get = (x: Expr): Code => this.vector(x, unit, at);
    switch (expr.op) {
      case "variable":
        return op(
          "i32x4.add",
          op("i32x4.splat", at.vector.get),
          at.lanes === 1 ? i32x4(0) : i32x4(unit * 4, unit * 4 + 1, unit * 4 + 2, unit * 4 + 3),
        );
      case "load":
        return this.#loadVector(expr, unit, at);
      case "unary":
        return this.#vectorUnary(expr.kind, expr.dtype, get(expr.x), at);
      case "binary":
        return this.#vectorBinary(expr, unit, at);
      case "select":
        return this.#vectorSelect(expr, get);
      case "cast":
        return vectorCast(expr.x.dtype, expr.dtype, get(expr.x));
      case "random":
        return philox(this.f, get(expr.key0), get(expr.key1), expr.stream, get(expr.index));
    }
  }

  #vectorUnary(kind: (Expr & { op: "unary" })["kind"], dtype: ComputeDType, x: Code, at: Position): Code {
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
        return this.#perLane("f32", at, [x], ([value = []]) => this.scalarMath.call(kind, value));
      case "exp":
      case "log":
      case "tanh":
      case "erf":
        return this.#vectorFunction(kind, x);
    }
  }

  #vectorSelect({ condition, a, b }: Expr & { op: "select" }, get: (x: Expr) => Code): Code {
    // A mask alone clears lanes; choosing takes three instructions.
    if (isZero(b)) return op("v128.and", get(a), get(condition));
    if (isZero(a)) return op("v128.andnot", get(b), get(condition));
    return choose(get(condition), get(a), get(b));
  }

  #vectorBinary(expr: Expr & { op: "binary" }, unit: number, at: Position): Code {
    const dtype = expr.a.dtype;
    const { kind } = expr;
    const a = (): Code => this.vector(expr.a, unit, at);
    const b = (): Code => this.vector(expr.b, unit, at);
    if (dtype === "f32") {
      if (kind === "pow" || kind === "mod")
        return this.#perLane("f32", at, [a(), b()], ([x = [], y = []]) => this.#scalarBinary(expr, x, y));
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
        if (!this.isLanewise(expr.b)) {
          return op(kind === "shl" ? "i32x4.shl" : isSigned ? "i32x4.shr_s" : "i32x4.shr_u", a(), this.scalar(expr.b, at));
        }
        return this.#perLane("i32", at, [a(), b()], ([x = [], y = []]) => this.#scalarBinary(expr, x, y));
      case "div":
      case "mod":
        return this.#perLane("i32", at, [a(), b()], ([x = [], y = []]) => this.#scalarBinary(expr, x, y));
      case "pow":
        throw new Error("Kernel: pow is defined for f32 only.");
    }
  }

  /** Computes lane by lane what has no vector instruction. */
  #perLane(type: "i32" | "f32", at: Position, operands: readonly Code[], make: (lanes: readonly Code[]) => Code): Code {
    const vectors = operands.map((operand) => this.f.let("v128", operand));
    const result = this.f.local("v128");
    for (let lane = 0; lane < at.lanes; lane++) {
      const value = make(vectors.map((vector) => extractLane(type, lane, vector.get)));
      this.f.emit(result.set(lane === 0 ? op(`${type}x4.splat`, value) : replaceLane(type, lane, result.get, value)));
    }
    return result.get;
  }

  #elementAddress(slot: Slot, index: Code): Code {
    const bytes = dtypeBytes[this.dtypes(slot)];
    const pointer = this.pointers.get(slot);
    if (!pointer) throw new Error(`Values: slot ${slot} has no pointer.`);
    return op("i32.add", pointer.get, bytes === 1 ? index : op("i32.shl", index, i32(Math.log2(bytes))));
  }

  /** The index with the inner variable at 0. */
  #startOf(index: Expr): Expr {
    const { makers } = this.program;
    return substitute(
      index,
      makers,
      (axis, size) => (axis === this.#innerAxis ? makers.int(0) : makers.variable(axis, size)),
      this.#atStart,
    );
  }

  /** The address of lane 0 of unit 0 of an access that is linear in the inner and the vector variable, and bytes from lane to lane; else null. */
  #linearAddress(slot: Slot, index: Expr, at: Position): { address: Code; laneBytes: number } | null {
    const innerStride = this.analysis.stride(index, this.#innerAxis);
    const laneStride = this.analysis.stride(index, this.program.vectorAxis);
    if (innerStride === null || laneStride === null) return null;
    const bytes = dtypeBytes[this.dtypes(slot)];
    const bases = mapOf(at.row.addresses, `${slot}`);
    const start = this.#keep(bases, index, at.row, at, "i32", () => this.#elementAddress(slot, this.scalar(this.#startOf(index), at)));
    const laneBytes = laneStride * bytes;
    if (innerStride === 0 || !at.step) return { address: start, laneBytes };
    const { step } = at;
    const addresses = mapOf(step.addresses, `${slot}`);
    return {
      address: this.#keep(addresses, index, step, at, "i32", () => op("i32.add", start, this.#offset(innerStride * bytes, step, at))),
      laneBytes,
    };
  }

  /** The inner variable times a factor. */
  #offset(factor: number, step: Scope, at: Position): Code {
    let local = step.offsets.get(factor);
    if (!local) {
      const isPower = factor > 0 && (factor & (factor - 1)) === 0;
      local = this.f.let("i32", isPower ? op("i32.shl", at.inner.get, i32(Math.log2(factor))) : op("i32.mul", at.inner.get, i32(factor)));
      step.offsets.set(factor, local);
    }
    return local.get;
  }

  #laneAddresses(slot: Slot, index: Expr, unit: number, at: Position): { address: Code; offset: number }[] {
    const lanes = [0, 1, 2, 3].slice(0, at.lanes);
    const linear = this.#linearAddress(slot, index, at);
    if (linear) {
      return lanes.map((lane) => {
        const offset = (unit * 4 + lane) * linear.laneBytes;
        return offset < 0 ? { address: op("i32.add", linear.address, i32(offset)), offset: 0 } : { address: linear.address, offset };
      });
    }
    const indices = this.vector(index, unit, at);
    return lanes.map((lane) => ({ address: this.#elementAddress(slot, extractLane("i32", lane, indices)), offset: 0 }));
  }

  #loadVector(expr: Expr & { op: "load" }, unit: number, at: Position): Code {
    const dtype = this.dtypes(expr.slot);
    if (at.lanes === 4) {
      const linear = this.#linearAddress(expr.slot, expr.index, at);
      if (linear?.laneBytes === dtypeBytes[dtype]) return loadVector(this.f, dtype, linear.address, unit * 4 * linear.laneBytes);
    }
    return loadLanes(this.f, dtype, this.#laneAddresses(expr.slot, expr.index, unit, at));
  }

  /** Stores a value for the lanes of one unit. */
  store(slot: Slot, index: Expr, value: Code, unit: number, at: Position): void {
    const dtype = this.dtypes(slot);
    const linear = this.#linearAddress(slot, index, at);
    if (linear && (at.lanes === 1 || linear.laneBytes === dtypeBytes[dtype])) {
      storeVector(this.f, dtype, linear.address, unit * 4 * Math.max(0, linear.laneBytes), value, at.lanes);
      return;
    }
    const addresses = this.#laneAddresses(slot, index, unit, at).map(({ address, offset }) =>
      offset === 0 ? address : op("i32.add", address, i32(offset)),
    );
    storeLanes(this.f, dtype, addresses, value);
  }
}

function mapOf(maps: Map<string, Map<Expr, Local>>, key: string): Map<Expr, Local> {
  let map = maps.get(key);
  if (!map) maps.set(key, (map = new Map()));
  return map;
}

function isZero(expr: Expr): boolean {
  return expr.op === "const" && Object.is(expr.value, 0);
}

/**
 * Against a constant other than 0 (of which there are two), the instruction that simply compares will do: with the constant second it
 * keeps a NaN. The one that looks for NaN and the sign of 0 by itself takes seven on x86.
 */
function floatExtremum(expr: Expr & { op: "binary" }, kind: "max" | "min", a: () => Code, b: () => Code): Code {
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

function scalarCast(from: ComputeDType, to: ComputeDType, x: Code): Code {
  if (from === "f32") {
    if (to === "bool") return op("f32.ne", x, f32(0));
    return op(to === "i32" ? "i32.trunc_sat_f32_s" : "i32.trunc_sat_f32_u", x);
  }
  if (to === "f32") return op(from === "i32" ? "f32.convert_i32_s" : "f32.convert_i32_u", x);
  return to === "bool" ? op("i32.ne", x, i32(0)) : x;
}

function vectorCast(from: ComputeDType, to: ComputeDType, x: Code): Code {
  if (from === "f32") {
    if (to === "bool") return op("f32x4.ne", x, f32x4(0));
    return op(to === "i32" ? "i32x4.trunc_sat_f32x4_s" : "i32x4.trunc_sat_f32x4_u", x);
  }
  if (from === "bool") return op("v128.and", x, to === "f32" ? f32x4(1) : i32x4(1));
  if (to === "f32") return op(from === "i32" ? "f32x4.convert_i32x4_s" : "f32x4.convert_i32x4_u", x);
  return to === "bool" ? op("i32x4.ne", x, i32x4(0)) : x;
}
