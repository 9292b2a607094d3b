import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import type { Expr, Index } from "../expr.js";
import type { Slot } from "../kernel.js";
import { substitute } from "../substitute.js";
import type { Analysis } from "./analysis.js";
import { Arithmetic, type Lanes, scalarCast, splat, vectorCast } from "./arithmetic.js";
import { type Code, extractLane, type FunctionBuilder, f32, f32x4, i32, i32x4, type Local, memory, op, shuffle32 } from "./assembler.js";
import { type ByteHost, type ByteScope, ByteValues } from "./bytes.js";
import type { LoopProgram } from "./lower.js";
import { choose, philox } from "./math.js";
import type { ScalarMath } from "./scalar-math.js";
import { loadLanes, loadScalar, loadVector, storeLanes, storeVector } from "./storage.js";

/** Where lane 0 of an access is, and bytes from lane to lane. */
export interface LinearAddress {
  readonly address: Code;
  /** Bytes that an instruction adds to the address. */
  readonly offset: number;
  readonly laneBytes: number;
}

/** Values already computed at one level of the loop nest. */
export interface Scope extends ByteScope {
  readonly scalars: Map<Expr, Local>;
  readonly splats: Map<Expr, Local>;
  /** One map for each unit of four lanes. */
  readonly vectors: Map<Expr, Local>[];
  /** Addresses of accesses by slot and index, and multiples of the inner position by factor. */
  readonly addresses: Map<string, Map<Expr, Local>>;
  readonly offsets: Map<number, Local>;
}

export function newScope(): Scope {
  return {
    scalars: new Map(),
    splats: new Map(),
    vectors: [],
    bytes: new Map(),
    low: new Map(),
    high: new Map(),
    looked: new Map(),
    pairsBelow: new Map(),
    pairsAbove: new Map(),
    tables: new Map(),
    addresses: new Map(),
    offsets: new Map(),
  };
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
  readonly lanes: Lanes;
  /** Vectors that a step computes. */
  readonly units: number;
}

/** Writes the code of expressions, as scalars or as vectors of four lanes, each value once and as far out as it can be. */
export class Values {
  readonly accumulators: Local[][] = [];
  /** What loads a value that was computed ahead into all lanes. */
  ahead: ReadonlyMap<Expr, () => Code> = new Map();
  readonly #innerAxis: number;
  readonly #isTurned: boolean;
  readonly #atStart = new Map<Expr, Expr>();
  readonly #atFirst = new Map<Expr, Expr>();
  readonly #atUnit = new Map<number, Map<Expr, Expr>>();
  readonly #arithmetic: Arithmetic;
  readonly #bytes: ByteValues;

  constructor(
    readonly f: FunctionBuilder,
    readonly program: LoopProgram,
    readonly analysis: Analysis,
    scalarMath: ScalarMath,
    readonly dtypes: (slot: Slot) => DType,
    readonly pointers: ReadonlyMap<Slot, Local>,
    readonly outerVariables: readonly Local[],
  ) {
    this.#arithmetic = new Arithmetic(f, scalarMath);
    const host: ByteHost = {
      isLanewise: (expr) => this.isLanewise(expr),
      scopeOf: (expr, at) => this.#scopeOf(expr, at),
      keep: (...args) => this.#keep(...args),
      addressOf: ({ slot, index }, at) => this.#linearAddress(slot, index, at),
      firstAddress: ({ slot, index }, at) => this.#firstAddress(slot, index, at),
      startOf: (slot) => this.#elementAddress(slot, i32(0)),
      scalar: (expr, at) => this.scalar(expr, at),
    };
    this.#innerAxis = program.kernel.outer.length;
    this.#isTurned = program.vectorAxis !== this.#innerAxis;
    const isOfBytes = program.vectorAxis === this.#innerAxis - 1 && program.kernel.outer.at(-1) === 16 && program.units === 4;
    this.#bytes = new ByteValues(f, host, dtypes, isOfBytes ? program.vectorAxis : null);
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
    if (expr.op === "given") return this.scalar(expr.x, at);
    const scope = this.#scopeOf(expr, at);
    return this.#keep(scope.scalars, expr, scope, at, expr.dtype === "f32" ? "f32" : "i32", () => this.#makeScalar(expr, at));
  }

  #outer(axis: number): Local {
    const local = this.outerVariables[axis];
    if (!local) throw new Error(`Values: no variable ${axis}.`);
    return local;
  }

  #makeScalar(expr: Exclude<Expr, { op: "const" | "variable" | "accumulator" | "given" }>, at: Position): Code {
    const get = (x: Expr): Code => this.scalar(x, at);
    switch (expr.op) {
      case "load":
        return loadScalar(this.f, this.dtypes(expr.slot), this.#elementAddress(expr.slot, get(expr.index)));
      case "unary":
        return this.#arithmetic.scalarUnary(expr.kind, expr.dtype, get(expr.x));
      case "binary":
      case "index":
        return this.#arithmetic.scalarBinary(expr, get(expr.a), get(expr.b));
      case "select":
        return [get(expr.a), get(expr.b), get(expr.condition), op("select")];
      case "cast":
        return scalarCast(expr.x.dtype, expr.dtype, get(expr.x));
      case "random": {
        const word = philox(
          this.f,
          op("i32x4.splat", get(expr.key0)),
          op("i32x4.splat", get(expr.key1)),
          op("i32x4.splat", get(expr.stream)),
          op("i32x4.splat", get(expr.index)),
        );
        return extractLane("i32", 0, word);
      }
    }
  }

  /** The first and the last eight of sixteen signed bytes in memory, as integers of 16 bits; null where they do not lie side by side. */
  signedHalves(expr: Expr, at: Position): readonly [Code, Code] | null {
    return this.#bytes.signedHalves(expr, at);
  }

  /** Where the first bytes of a small integer lie, and how many bytes its elements move with an axis; null where they do not lie in a line. */
  stream(expr: Expr, at: Position): (LinearAddress & { readonly bytesAlong: (axis: number) => number }) | null {
    const [load] = this.#bytes.small.loadsOf(expr) ?? [];
    if (load?.op !== "load") return null;
    const { slot, index } = load;
    const found = this.#linearAddress(slot, index, at);
    return found && { ...found, bytesAlong: (axis) => (this.analysis.stride(index, axis) ?? 0) * dtypeBytes[this.dtypes(slot)] };
  }

  /** A small integer in sixteen lanes, as bytes. */
  bytes(expr: Expr, at: Position): Code {
    return this.#bytes.all(expr, at);
  }

  /** A value for four lanes (unit `unit` of them). A bool is a mask. */
  vector(expr: Expr, unit: number, at: Position): Code {
    if (expr.op === "const") {
      if (expr.dtype === "f32") return f32x4(expr.value);
      return i32x4(expr.dtype === "bool" ? -expr.value : expr.value);
    }
    if (expr.op === "given") return this.vector(expr.x, unit, at);
    const scope = this.#scopeOf(expr, at);
    if (!this.isLanewise(expr)) {
      const load = this.ahead.get(expr);
      return this.#keep(scope.splats, expr, scope, at, "v128", load ?? (() => splat(expr.dtype, this.scalar(expr, at))));
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

  #makeVector(expr: Exclude<Expr, { op: "const" | "accumulator" | "given" }>, unit: number, at: Position): Code {
    const get = (x: Expr): Code => this.vector(x, unit, at);
    const shortcut = this.#bytes.unit(expr, unit, at) ?? this.#multiplied(expr, get);
    if (shortcut) return shortcut;
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
        return this.#arithmetic.vectorUnary(expr.kind, expr.dtype, get(expr.x), at.lanes);
      case "binary":
      case "index":
        return this.#arithmetic.vectorBinary(
          expr,
          () => get(expr.a),
          () => get(expr.b),
          this.isLanewise(expr.b) ? null : () => this.scalar(expr.b, at),
          at.lanes,
        );
      case "select":
        return this.#vectorSelect(expr, get);
      case "cast":
        // Signed integers convert in one instruction.
        return vectorCast(expr.x.dtype === "u32" && this.#bytes.small.of(expr.x) ? "i32" : expr.x.dtype, expr.dtype, get(expr.x));
      case "random":
        return philox(this.f, get(expr.key0), get(expr.key1), get(expr.stream), get(expr.index));
    }
  }

  /** a · b + c, rounded once, where the program is part of a product. */
  #multiplied(expr: Expr, get: (x: Expr) => Code): Code | null {
    if (!this.program.isRanged || expr.op !== "binary" || expr.kind !== "add" || expr.dtype !== "f32") return null;
    const [product, other] = isProduct(expr.a) ? [expr.a, expr.b] : [expr.b, expr.a];
    return isProduct(product) ? this.f.multiplyAdd(get(product.a), get(product.b), get(other)) : null;
  }

  /** For a value that is a product with what is the same in all lanes: that factor, and the rest. */
  sharedFactor(value: Expr): { readonly factor: Expr; readonly rest: Expr } | null {
    if (!isProduct(value)) return null;
    if (!this.isLanewise(value.b)) return { factor: value.b, rest: value.a };
    return this.isLanewise(value.a) ? null : { factor: value.a, rest: value.b };
  }

  /** A sum and a value more, term by term where the value is a sum itself. */
  added(sum: Local, value: Expr, unit: number, at: Position): Code {
    if (this.program.isRanged && value.op === "binary" && value.kind === "add" && value.dtype === "f32") {
      this.f.emit(sum.set(this.added(sum, value.a, unit, at)));
      return this.added(sum, value.b, unit, at);
    }
    if (!this.program.isRanged || !isProduct(value)) return op("f32x4.add", sum.get, this.vector(value, unit, at));
    return this.f.multiplyAdd(this.vector(value.a, unit, at), this.vector(value.b, unit, at), sum.get);
  }

  #vectorSelect({ condition, a, b }: Expr & { op: "select" }, get: (x: Expr) => Code): Code {
    // A mask alone clears lanes; choosing takes three instructions.
    if (isZero(b)) return op("v128.and", get(a), get(condition));
    if (isZero(a)) return op("v128.andnot", get(b), get(condition));
    return choose(get(condition), get(a), get(b));
  }

  #elementAddress(slot: Slot, index: Code): Code {
    const bytes = dtypeBytes[this.dtypes(slot)];
    const pointer = this.pointers.get(slot);
    if (!pointer) throw new Error(`Values: slot ${slot} has no pointer.`);
    return op("i32.add", pointer.get, bytes === 1 ? index : op("i32.shl", index, i32(Math.log2(bytes))));
  }

  /** The index with the inner variable at 0. */
  #startOf(index: Index): Index {
    const { makers } = this.program;
    return substitute(
      index,
      makers,
      (axis, size) => (axis === this.#innerAxis ? makers.int(0) : makers.variable(axis, size)),
      this.#atStart,
    );
  }

  /** The address of lane 0 of unit 0 of an access that is linear in the inner and the vector variable, and bytes from lane to lane; else null. */
  #linearAddress(slot: Slot, index: Index, at: Position): LinearAddress | null {
    const innerStride = this.analysis.stride(index, this.#innerAxis);
    // Where lanes are rows, each has what its own row was reduced to.
    const isRowwise = this.#isTurned && this.analysis.usesAccumulator(index);
    const laneStride = isRowwise ? null : this.analysis.stride(index, this.program.vectorAxis);
    if (innerStride === null || laneStride === null) return null;
    const bytes = dtypeBytes[this.dtypes(slot)];
    const laneBytes = laneStride * bytes;
    // Units of a block differ by a constant, which instructions add for nothing.
    const isShifted = this.program.isRanged && index.op === "index" && index.kind === "add" && index.b.op === "const" && index.b.value > 0;
    const [base, offset] = isShifted && index.b.op === "const" ? [index.a, index.b.value * bytes] : [index, 0];
    const bases = mapOf(at.row.addresses, `${slot}`);
    const start = this.#keep(bases, base, at.row, at, "i32", () => this.#elementAddress(slot, this.scalar(this.#startOf(base), at)));
    if (innerStride === 0 || !at.step) return { address: start, laneBytes, offset };
    const { step } = at;
    const addresses = mapOf(step.addresses, `${slot}`);
    const address = this.#keep(addresses, base, step, at, "i32", () => op("i32.add", start, this.#offset(innerStride * bytes, step, at)));
    return { address, laneBytes, offset };
  }

  /** The address of an access in lane 0, in terms that leave the lanes out. */
  #firstAddress(slot: Slot, index: Index, at: Position): { readonly address: Code; readonly offset: number } {
    const { makers, vectorAxis } = this.program;
    const first = substitute(
      index,
      makers,
      (axis, size) => (axis === vectorAxis ? makers.int(0) : makers.variable(axis, size)),
      this.#atFirst,
    );
    return this.#linearAddress(slot, first, at) ?? { address: this.#elementAddress(slot, this.scalar(first, at)), offset: 0 };
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

  /** The address of a unit's lane 0 of an access that is linear in the lanes of the unit at least. */
  #unitAddress(slot: Slot, index: Index, unit: number, at: Position): LinearAddress | null {
    const linear = this.#linearAddress(slot, index, at);
    if (linear) return { ...linear, offset: linear.offset + unit * 4 * linear.laneBytes };
    if (!this.#isTurned || at.lanes !== 4 || this.program.kernel.outer.at(-1) !== at.units * 4) return null;
    return this.#linearAddress(slot, this.#inUnit(index, unit), at);
  }

  /** The index in terms of the lanes of one unit: where all lanes of a kernel are one step, a unit's are known. */
  #inUnit(index: Index, unit: number): Index {
    const { makers, vectorAxis } = this.program;
    let known = this.#atUnit.get(unit);
    if (!known) this.#atUnit.set(unit, (known = new Map()));
    const variable = (axis: number, size: number): Index =>
      axis === vectorAxis ? makers.add(makers.variable(axis, 4), makers.int(unit * 4)) : makers.variable(axis, size);
    return substitute(index, makers, variable, known);
  }

  #laneAddresses(slot: Slot, index: Index, unit: number, at: Position): { address: Code; offset: number }[] {
    const lanes = [0, 1, 2, 3].slice(0, at.lanes);
    const linear = this.#unitAddress(slot, index, unit, at);
    if (linear) {
      return lanes.map((lane) => {
        const offset = linear.offset + lane * linear.laneBytes;
        return offset < 0 ? { address: op("i32.add", linear.address, i32(offset)), offset: 0 } : { address: linear.address, offset };
      });
    }
    const indices = this.vector(index, unit, at);
    return lanes.map((lane) => ({ address: this.#elementAddress(slot, extractLane("i32", lane, indices)), offset: 0 }));
  }

  #loadVector(expr: Expr & { op: "load" }, unit: number, at: Position): Code {
    const dtype = this.dtypes(expr.slot);
    if (at.lanes === 4) {
      const linear = this.#unitAddress(expr.slot, expr.index, unit, at);
      if (linear?.laneBytes === dtypeBytes[dtype]) return loadVector(this.f, dtype, linear.address, linear.offset);
      // Every second element: of four neighbours the first and the third, and of the four from the fourth on the second and the last.
      if (linear?.laneBytes === 8 && dtypeBytes[dtype] === 4) {
        const four = (from: number): Code => memory("v128.load", linear.offset + from, linear.address);
        return shuffle32(four(0), four(12), [0, 2, 5, 7]);
      }
    }
    return loadLanes(this.f, dtype, this.#laneAddresses(expr.slot, expr.index, unit, at));
  }

  /** Stores a value for the lanes of one unit. */
  store(slot: Slot, index: Index, value: Code, unit: number, at: Position): void {
    const dtype = this.dtypes(slot);
    const linear = this.#unitAddress(slot, index, unit, at);
    if (linear && (at.lanes === 1 || linear.laneBytes === dtypeBytes[dtype])) {
      storeVector(this.f, dtype, linear.address, Math.max(0, linear.offset), value, at.lanes);
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

function isProduct(expr: Expr): expr is Expr & { op: "binary" } {
  return expr.op === "binary" && expr.kind === "mul" && expr.dtype === "f32";
}

function isZero(expr: Expr): boolean {
  return expr.op === "const" && Object.is(expr.value, 0);
}
