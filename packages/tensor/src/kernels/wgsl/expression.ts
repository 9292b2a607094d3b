import type { ComputeDType } from "../../tensor/dtype.js";
import { type Expr, isIndex, operandsOf } from "../expr.js";
import { type Binary, binaryCode, unaryCode, zeroCode } from "./elementwise.js";
import type { ProgramFunctions } from "./functions.js";
import { literal, valueType } from "./literals.js";
import type { ProgramMemory } from "./memory.js";

/** A printed expression: WGSL text that may be repeated, and whether it is four lanes. */
export interface Value {
  readonly code: string;
  readonly isVector: boolean;
}

/** How often a statement runs: once a row, or in each step of the loop that is open. */
export interface Scope {
  readonly lines: string[];
  readonly names: Map<Expr, Value>;
  /** Values of lane 0 of expressions that are vectors, for addresses. */
  readonly bases: Map<Expr, Value>;
}

export function newScope(): Scope {
  return { lines: [], names: new Map(), bases: new Map() };
}

/** How an expression moves from lane to lane of a vector axis. */
export class ExprFacts {
  constructor(readonly vectorAxis: number) {}

  dependsOn(expr: Expr, axis: number): boolean {
    return axis >= 0 && (expr.axes & (1 << axis)) !== 0;
  }

  isNonNegative(expr: Expr): boolean {
    return isIndex(expr) && expr.low >= 0;
  }

  /** How much an index grows from lane to lane, where that is the same number for all four; else null. */
  laneStride(expr: Expr): number | null {
    if (!this.dependsOn(expr, this.vectorAxis)) return expr.axes < 0 ? null : 0;
    switch (expr.op) {
      case "variable":
        return 1;
      case "index": {
        const a = this.laneStride(expr.a);
        const b = this.laneStride(expr.b);
        if (a === null || b === null) return null;
        if (a === 0 && b === 0) return 0;
        if (expr.kind === "add") return a + b;
        if (expr.kind === "sub") return a - b;
        if (expr.kind === "mul" && expr.b.op === "const") return a * expr.b.value;
        const isBlock =
          expr.b.op === "const" &&
          expr.b.value > 0 &&
          expr.b.value % 4 === 0 &&
          a === 1 &&
          this.isAligned(expr.a) &&
          this.isNonNegative(expr.a);
        if (expr.kind === "div" && isBlock) return 0;
        if (expr.kind === "mod" && isBlock) return 1;
        return null;
      }
      default:
        return null;
    }
  }

  /** True when lane 0's value is surely a multiple of 4. */
  isAligned(expr: Expr): boolean {
    switch (expr.op) {
      case "const":
        return expr.value % 4 === 0;
      case "variable":
        return expr.axis === this.vectorAxis;
      case "index":
        if (expr.kind === "add" || expr.kind === "sub") return this.isAligned(expr.a) && this.isAligned(expr.b);
        if (expr.kind === "mul") return this.isAligned(expr.a) || this.isAligned(expr.b);
        if (expr.kind === "mod") return expr.b.op === "const" && expr.b.value % 4 === 0 && this.isAligned(expr.a);
        return false;
      default:
        return false;
    }
  }
}

/** Prints expressions of one kernel as WGSL statements `let x = …;`, each once, in the outermost scope in which its operands exist. */
export class ExprPrinter {
  #count = 0;
  #inner: Scope | null = null;
  readonly #vectors = new Map<Expr, boolean>();
  accumulators: Value[] = [];

  constructor(
    readonly facts: ExprFacts,
    readonly memory: ProgramMemory,
    readonly functions: ProgramFunctions,
    /** WGSL text of lane 0 of each variable. */
    readonly variables: readonly string[],
    readonly innerAxis: number,
    readonly row: Scope,
  ) {}

  /** Opens the loop over the inner variable: from now on what depends on it is printed there. Returns the loop's statements. */
  enter(): string[] {
    this.#inner = newScope();
    return this.#inner.lines;
  }

  leave(): void {
    this.#inner = null;
  }

  newName(): string {
    return `t${this.#count++}`;
  }

  #scopeOf(expr: Expr): Scope {
    if (!this.facts.dependsOn(expr, this.innerAxis)) return this.row;
    if (!this.#inner) throw new Error("A row value depends on the inner variable.");
    return this.#inner;
  }

  /** The value of an expression in all lanes. */
  value(expr: Expr): Value {
    if (expr.op === "given") return this.value(expr.x);
    if (!this.#isVector(expr)) return this.base(expr);
    return this.#once(expr, "names", () => this.#print(expr));
  }

  /** The value of lane 0. */
  base(expr: Expr): Value {
    if (expr.op === "const") return { code: literal(expr.dtype, expr.value), isVector: false };
    if (expr.op === "variable") return { code: this.variables[expr.axis] ?? "0", isVector: false };
    if (expr.op === "accumulator") return this.#accumulator(expr.index);
    if (expr.op === "given") return this.base(expr.x);
    return this.#once(expr, "bases", () => this.#compute(expr, (operand) => this.base(operand)));
  }

  /** Four lanes of a value. */
  splat(value: Value, dtype: ComputeDType): string {
    return value.isVector ? value.code : `${valueType(dtype, true)}(${value.code})`;
  }

  #isVector(expr: Expr): boolean {
    if (this.facts.dependsOn(expr, this.facts.vectorAxis)) return true;
    // Through accumulators that have a lane for each of four rows.
    if (expr.axes >= 0) return false;
    if (expr.op === "accumulator") return this.#accumulator(expr.index).isVector;
    let isVector = this.#vectors.get(expr);
    if (isVector === undefined) {
      isVector = operandsOf(expr).some((operand) => this.#isVector(operand));
      this.#vectors.set(expr, isVector);
    }
    return isVector;
  }

  #accumulator(index: number): Value {
    const value = this.accumulators[index];
    if (!value) throw new Error(`Accumulator ${index} is read before it is finished.`);
    return value;
  }

  #once(expr: Expr, table: "names" | "bases", print: () => Value): Value {
    const scope = this.#scopeOf(expr);
    const known = scope[table].get(expr);
    if (known) return known;
    const printed = print();
    const name = this.newName();
    scope.lines.push(`let ${name} = ${printed.code};`);
    const value = { code: name, isVector: printed.isVector };
    scope[table].set(expr, value);
    return value;
  }

  #print(expr: Expr): Value {
    switch (expr.op) {
      case "variable":
        return { code: `${this.base(expr).code} + vec4i(0, 1, 2, 3)`, isVector: true };
      case "accumulator":
        return this.#accumulator(expr.index);
      case "load":
        return { code: this.#loadLanes(expr.slot, expr.index, expr.dtype), isVector: true };
      case "random":
        return { code: this.#randomLanes(expr), isVector: true };
      default:
        return this.#compute(expr, (operand) => this.value(operand));
    }
  }

  #loadLanes(slot: number, index: Expr, dtype: ComputeDType): string {
    const stride = this.facts.laneStride(index);
    if (stride === null) {
      const lanes = this.value(index).code;
      return `${valueType(dtype, true)}(${["x", "y", "z", "w"].map((lane) => this.memory.load(slot, `${lanes}.${lane}`)).join(", ")})`;
    }
    const base = this.base(index).code;
    if (stride === 0) return `${valueType(dtype, true)}(${this.memory.load(slot, base)})`;
    if (stride === 1 && this.facts.isAligned(index)) return this.memory.loadVector(slot, base);
    const lanes = [0, 1, 2, 3].map((lane) => this.memory.load(slot, lane === 0 ? base : `${base} + ${lane * stride}`));
    return `${valueType(dtype, true)}(${lanes.join(", ")})`;
  }

  #randomLanes(expr: Expr & { op: "random" }): string {
    const { facts } = this;
    const philox = this.functions.use("philox", false);
    const [key0, key1, stream] = [this.value(expr.key0), this.value(expr.key1), this.value(expr.stream)];
    const lane = (value: Value, name: string): string => (value.isVector ? `${value.code}.${name}` : value.code);
    const isShared = !key0.isVector && !key1.isVector && !stream.isVector;
    if (isShared && facts.laneStride(expr.index) === 1 && facts.isAligned(expr.index)) {
      return `${philox}(u32(${key0.code}), u32(${key1.code}), u32(${stream.code}), u32(${this.base(expr.index).code}) >> 2u)`;
    }
    const index = this.value(expr.index);
    const words = ["x", "y", "z", "w"].map((name) => {
      const at = `u32(${lane(index, name)})`;
      return `${philox}(u32(${lane(key0, name)}), u32(${lane(key1, name)}), u32(${lane(stream, name)}), ${at} >> 2u)[${at} & 3u]`;
    });
    return `vec4u(${words.join(", ")})`;
  }

  /** Everything that works lane by lane. */
  #compute(expr: Expr, get: (operand: Expr) => Value): Value {
    switch (expr.op) {
      case "load":
        return { code: this.memory.load(expr.slot, get(expr.index).code), isVector: false };
      case "random": {
        const at = `u32(${get(expr.index).code})`;
        const philox = this.functions.use("philox", false);
        const [key0, key1, stream] = [expr.key0, expr.key1, expr.stream].map((word) => `u32(${get(word).code})`);
        return { code: `${philox}(${key0}, ${key1}, ${stream}, ${at} >> 2u)[${at} & 3u]`, isVector: false };
      }
      case "unary": {
        const x = this.#opaque(expr.x, get(expr.x), [expr.x]);
        const on = { dtype: expr.dtype, isVector: x.isVector, functions: this.functions };
        return { code: unaryCode[expr.kind](x.code, on), isVector: x.isVector };
      }
      case "cast": {
        const x = this.#opaque(expr.x, get(expr.x), [expr.x]);
        const zero = zeroCode(expr.x.dtype, x.isVector);
        if (expr.x.dtype === "f32" && (expr.dtype === "i32" || expr.dtype === "u32")) {
          // WGSL leaves NaN and values out of range open; here NaN gives 0 and the rest the nearest integer there is.
          const [type, words, floats] = [expr.dtype, "u32", "f32"].map((name) => valueType(name as ComputeDType, x.isVector));
          const [low, high, past, most] =
            expr.dtype === "i32"
              ? ["-2147483648.0f", "2147483520.0f", "2147483648.0f", "2147483647i"]
              : ["0.0f", "4294967040.0f", "4294967296.0f", "4294967295u"];
          const inRange = `${type}(clamp(${x.code}, ${floats}(${low}), ${floats}(${high})))`;
          const saturated = `select(${inRange}, ${type}(${most}), ${x.code} >= ${floats}(${past}))`;
          const isNotNumber = `(bitcast<${words}>(${x.code}) & ${words}(2147483647u)) > ${words}(2139095040u)`;
          return { code: `select(${saturated}, ${type}(), ${isNotNumber})`, isVector: x.isVector };
        }
        return {
          code: expr.dtype === "bool" ? `${x.code} != ${zero}` : `${valueType(expr.dtype, x.isVector)}(${x.code})`,
          isVector: x.isVector,
        };
      }
      case "binary":
      case "index":
        return this.#binary(expr, get);
      case "select": {
        const [condition, a, b] = [get(expr.condition), get(expr.a), get(expr.b)];
        const isVector = condition.isVector || a.isVector || b.isVector;
        const spread = (value: Value, dtype: ComputeDType): string => (isVector ? this.splat(value, dtype) : value.code);
        return { code: `select(${spread(b, expr.dtype)}, ${spread(a, expr.dtype)}, ${spread(condition, "bool")})`, isVector };
      }
      case "const":
      case "variable":
      case "accumulator":
      case "given":
        return this.base(expr);
    }
  }

  /** Hides that all operands are constants: WGSL refuses programs whose constant expressions overflow or divide by zero. */
  #opaque(expr: Expr, value: Value, operands: readonly Expr[]): Value {
    if (expr.op !== "const" || !operands.every((operand) => operand.op === "const")) return value;
    const bits = expr.dtype === "f32" ? "bitcast<f32>" : expr.dtype === "i32" ? "bitcast<i32>" : expr.dtype === "u32" ? "" : "bool";
    const scratch = new DataView(new ArrayBuffer(4));
    if (expr.dtype === "f32") scratch.setFloat32(0, expr.value);
    else scratch.setUint32(0, expr.value >>> 0);
    return { code: `${bits}(opaqueBits(${scratch.getUint32(0)}u))`, isVector: false };
  }

  #binary(expr: Binary, get: (operand: Expr) => Value): Value {
    const { dtype } = expr.a;
    const a = this.#opaque(expr.a, get(expr.a), [expr.a, expr.b]);
    const b = get(expr.b);
    const isVector = a.isVector || b.isVector;
    const [x, y] = isVector ? [this.splat(a, dtype), this.splat(b, expr.b.dtype)] : [a.code, b.code];
    return { code: binaryCode[expr.kind](x, y, { dtype, isVector, functions: this.functions }, expr), isVector };
  }
}
