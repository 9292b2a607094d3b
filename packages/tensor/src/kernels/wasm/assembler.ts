import {
  type LaneMemoryOpcode,
  type LaneOpcode,
  laneMemoryOpcodes,
  laneOpcodes,
  type MemoryOpcode,
  memoryOpcodes,
  type Opcode,
  opcodes,
} from "./opcodes.js";

/**
 * An assembler for WebAssembly modules. Code is a rope of bytes: an expression is the code that leaves its value on the stack, so that
 * operands nest (`op("i32.add", x.get, i32(4))`) and are flattened once, when the module is written. Types are the engine's to check.
 */
export type Code = readonly (number | Code)[] | Uint8Array;

export type ValueType = "i32" | "i64" | "f32" | "f64" | "v128";

const typeBytes = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b } as const satisfies Record<ValueType, number>;

/** Unsigned LEB128 of an integer 0 … 2^53. */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest % 128;
    rest = Math.floor(rest / 128);
    bytes.push(rest > 0 ? low | 0x80 : low);
  } while (rest > 0);
  return bytes;
}

/** Signed LEB128 of a 64-bit integer. */
function signed(value: bigint): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (;;) {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    const isLast = (rest === 0n && (low & 0x40) === 0) || (rest === -1n && (low & 0x40) !== 0);
    bytes.push(isLast ? low : low | 0x80);
    if (isLast) return bytes;
  }
}

function opcodeBytes(code: number): number[] {
  if (code <= 0xff) return [code];
  // 0xfdNN or 0xfdNNN: the prefix byte stands before two or three hexadecimal digits.
  const isLong = code > 0xffff;
  return [isLong ? code >> 12 : code >> 8, ...unsigned(isLong ? code & 0xfff : code & 0xff)];
}

/** An instruction without immediates on its operands. */
export function op(name: Opcode, ...operands: readonly Code[]): Code {
  return [...operands, opcodeBytes(opcodes[name])];
}

/** A memory instruction; operands are the address and whatever the instruction takes besides. */
export function memory(name: MemoryOpcode, offset: number, ...operands: readonly Code[]): Code {
  const [code, align] = memoryOpcodes[name];
  return [...operands, opcodeBytes(code), unsigned(align), unsigned(offset)];
}

/** A load into, or a store from, one lane: operands are the address and the vector. */
export function laneMemory(name: LaneMemoryOpcode, offset: number, lane: number, address: Code, vector: Code): Code {
  const [code, align] = laneMemoryOpcodes[name];
  return [address, vector, opcodeBytes(code), unsigned(align), unsigned(offset), lane];
}

export function extractLane(type: "i32" | "f32" | "f64", lane: number, vector: Code): Code {
  const name: LaneOpcode = type === "f64" ? "f64x2.extract_lane" : `${type}x4.extract_lane`;
  return [vector, opcodeBytes(laneOpcodes[name]), lane];
}

export function replaceLane(type: "i32" | "f32", lane: number, vector: Code, value: Code): Code {
  const name: LaneOpcode = `${type}x4.replace_lane`;
  return [vector, value, opcodeBytes(laneOpcodes[name]), lane];
}

/** Picks four 32-bit lanes out of the eight of `a` (0–3) and `b` (4–7). */
export function shuffle32(a: Code, b: Code, lanes: readonly [number, number, number, number]): Code {
  return [a, b, opcodeBytes(0xfd0d), lanes.flatMap((lane) => [lane * 4, lane * 4 + 1, lane * 4 + 2, lane * 4 + 3])];
}

/** Picks sixteen bytes out of the 32 of `a` (0–15) and `b` (16–31). */
export function shuffle8(a: Code, b: Code, lanes: readonly number[]): Code {
  return [a, b, opcodeBytes(0xfd0d), lanes];
}

/** Lanes of two vectors by turns, of their low or high halves: of bytes or of pairs of bytes. */
export function interleave(bytes: 1 | 2, half: "low" | "high", a: Code, b: Code): Code {
  const lanes = Array.from({ length: 16 }, (_, i) => {
    const lane = Math.floor(i / bytes / 2) * bytes + (i % bytes) + (half === "low" ? 0 : 8);
    return Math.floor(i / bytes) % 2 === 0 ? lane : lane + 16;
  });
  return shuffle8(a, b, lanes);
}

export function i32(value: number): Code {
  return [0x41, signed(BigInt(value | 0))];
}

export function i64(value: bigint): Code {
  return [0x42, signed(BigInt.asIntN(64, value))];
}

export function f32(value: number): Code {
  return [0x43, ...new Uint8Array(new Float32Array([value]).buffer)];
}

export function f64(value: number): Code {
  return [0x44, ...new Uint8Array(new Float64Array([value]).buffer)];
}

/** A vector constant of four lanes. */
export function i32x4(...lanes: readonly [number, number, number, number] | readonly [number]): Code {
  const [a, b = a, c = a, d = a] = lanes;
  return [opcodeBytes(0xfd0c), ...new Uint8Array(new Int32Array([a, b, c, d]).buffer)];
}

/** A vector constant of four equal lanes. */
export function f32x4(value: number): Code {
  return [opcodeBytes(0xfd0c), ...new Uint8Array(new Float32Array([value, value, value, value]).buffer)];
}

/** memory.fill(address, byte, length). */
export function memoryFill(address: Code, byte: Code, length: Code): Code {
  return [address, byte, length, 0xfc, 11, 0];
}

/** memory.copy(to, from, length). */
export function memoryCopy(to: Code, from: Code, length: Code): Code {
  return [to, from, length, 0xfc, 10, 0, 0];
}

/** A local variable of a function. */
export interface Local {
  readonly type: ValueType;
  readonly get: Code;
  set(value: Code): Code;
  tee(value: Code): Code;
}

/** The target of a branch: the end of a block, or the start of a loop. */
export interface Label {
  readonly depth: number;
}

/** One function being written, statement by statement. */
export class FunctionBuilder {
  readonly params: readonly Local[];
  #code: Code[] = [];
  readonly #locals: ValueType[] = [];
  #depth = 0;

  constructor(
    readonly index: number,
    readonly paramTypes: readonly ValueType[],
    readonly resultTypes: readonly ValueType[],
    readonly hasRelaxedSimd: boolean = false,
  ) {
    this.params = paramTypes.map((type, i) => makeLocal(type, i));
  }

  param(index: number): Local {
    const local = this.params[index];
    if (!local) throw new Error(`assembler: function ${this.index} has no parameter ${index}.`);
    return local;
  }

  local(type: ValueType): Local {
    this.#locals.push(type);
    return makeLocal(type, this.params.length + this.#locals.length - 1);
  }

  /** a · b + sum in four f32 lanes, rounded once where the runtime has a fused instruction for it, else twice. */
  multiplyAdd(a: Code, b: Code, sum: Code): Code {
    return this.hasRelaxedSimd ? op("f32x4.relaxed_madd", a, b, sum) : op("f32x4.add", sum, op("f32x4.mul", a, b));
  }

  /** Bytes of a table of sixteen by their numbers, which are below sixteen. */
  lookUp(table: Code, numbers: Code): Code {
    return op(this.hasRelaxedSimd ? "i8x16.relaxed_swizzle" : "i8x16.swizzle", table, numbers);
  }

  /** A new local that holds `value` from here on. */
  let(type: ValueType, value: Code): Local {
    const local = this.local(type);
    this.emit(local.set(value));
    return local;
  }

  emit(code: Code): void {
    this.#code.push(code);
  }

  /** The buffer that statements go to now; `into` sends later ones there, however deep the code being written has become. */
  get here(): Code[] {
    return this.#code;
  }

  into(buffer: Code[], body: () => void): void {
    const before = this.#code;
    this.#code = buffer;
    body();
    this.#code = before;
  }

  block(body: (exit: Label) => void): void {
    this.#structure([0x02, 0x40], body);
  }

  loop(body: (again: Label) => void): void {
    this.#structure([0x03, 0x40], body);
  }

  if(condition: Code, then: () => void, otherwise?: () => void): void {
    this.#structure([condition, 0x04, 0x40], () => {
      then();
      if (!otherwise) return;
      this.emit([0x05]);
      otherwise();
    });
  }

  br(label: Label): void {
    this.emit([0x0c, unsigned(this.#depth - label.depth)]);
  }

  brIf(label: Label, condition: Code): void {
    this.emit([condition, 0x0d, unsigned(this.#depth - label.depth)]);
  }

  /** while (variable < end) { body; variable += step } over i32, unsigned. `end` is evaluated anew each time: a local or constant. */
  while(variable: Local, end: Code, step: Code, body: () => void): void {
    this.if(op("i32.lt_u", variable.get, end), () => {
      this.loop((again) => {
        body();
        this.brIf(again, op("i32.lt_u", variable.tee(op("i32.add", variable.get, step)), end));
      });
    });
  }

  /** for (variable = 0; variable < end; variable += step) body. */
  for(variable: Local, end: Code, step: Code, body: () => void): void {
    this.emit(variable.set(i32(0)));
    this.while(variable, end, step, body);
  }

  #structure(opening: Code, body: (label: Label) => void): void {
    this.emit(opening);
    this.#depth++;
    body({ depth: this.#depth });
    this.#depth--;
    this.emit([0x0b]);
  }

  bytes(): Code {
    const locals = this.#locals.map((type) => [1, typeBytes[type]]);
    const bytes = flatten([unsigned(locals.length), ...locals, this.#code, 0x0b]);
    return [unsigned(bytes.length), bytes];
  }
}

function makeLocal(type: ValueType, index: number): Local {
  const at = unsigned(index);
  return { type, get: [0x20, at], set: (value) => [value, 0x21, at], tee: (value) => [value, 0x22, at] };
}

/** Call of a function by its index in the module. */
export function call(index: number, ...operands: readonly Code[]): Code {
  return [...operands, 0x10, unsigned(index)];
}

interface FunctionImport {
  readonly name: string;
  readonly params: readonly ValueType[];
  readonly results: readonly ValueType[];
}

export interface ModuleOptions {
  /** Whether the imported memory `env.memory` is shared between threads. */
  readonly isShared: boolean;
  /** Imports `env.table` for calls by number. */
  readonly usesTable?: boolean;
  readonly imports?: readonly FunctionImport[];
  /** Whether the runtime knows the relaxed instructions, of which `multiplyAdd` makes use. */
  readonly hasRelaxedSimd?: boolean;
}

/** A module over the imported memory `env.memory`. */
export class ModuleBuilder {
  readonly #types: string[] = [];
  readonly #typeCodes: Code[] = [];
  readonly #functions: FunctionBuilder[] = [];
  readonly #exports: Code[] = [];
  readonly #imports: readonly FunctionImport[];

  constructor(readonly options: ModuleOptions) {
    this.#imports = options.imports ?? [];
  }

  /** Adds a function; with a name it is exported. */
  function(params: readonly ValueType[], results: readonly ValueType[], name?: string): FunctionBuilder {
    const built = new FunctionBuilder(this.#imports.length + this.#functions.length, params, results, this.options.hasRelaxedSimd);
    this.#functions.push(built);
    if (name !== undefined) this.#exports.push([text(name), 0, unsigned(built.index)]);
    return built;
  }

  type(params: readonly ValueType[], results: readonly ValueType[]): number {
    const key = `${params.join()}>${results.join()}`;
    const found = this.#types.indexOf(key);
    if (found >= 0) return found;
    this.#types.push(key);
    this.#typeCodes.push([0x60, vector(params.map((type) => [typeBytes[type]])), vector(results.map((type) => [typeBytes[type]]))]);
    return this.#types.length - 1;
  }

  /** Call of table entry `entry` with a signature. */
  callIndirect(params: readonly ValueType[], results: readonly ValueType[], entry: Code, ...operands: readonly Code[]): Code {
    return [...operands, entry, 0x11, unsigned(this.type(params, results)), 0];
  }

  bytes(): Uint8Array<ArrayBuffer> {
    const functionTypes = this.#functions.map((built) => unsigned(this.type(built.paramTypes, built.resultTypes)));
    const imports: Code[] = this.#imports.map((entry) => [
      text("env"),
      text(entry.name),
      0,
      unsigned(this.type(entry.params, entry.results)),
    ]);
    imports.push([text("env"), text("memory"), 0x02, this.options.isShared ? 0x03 : 0x01, unsigned(1), unsigned(65536)]);
    if (this.options.usesTable) imports.push([text("env"), text("table"), 0x01, 0x70, 0x00, unsigned(0)]);
    const bodies = this.#functions.map((built) => built.bytes());
    return flatten([
      [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
      section(1, this.#typeCodes),
      section(2, imports),
      section(3, functionTypes),
      section(7, this.#exports),
      section(10, bodies),
    ]);
  }
}

function text(value: string): Code {
  const bytes = new TextEncoder().encode(value);
  return [unsigned(bytes.length), bytes];
}

function vector(items: readonly Code[]): Code {
  return [unsigned(items.length), items];
}

function section(id: number, items: readonly Code[]): Code {
  const bytes = flatten(vector(items));
  return [id, unsigned(bytes.length), bytes];
}

function flatten(code: Code): Uint8Array<ArrayBuffer> {
  let [bytes, length] = [new Uint8Array(1024), 0];
  const reserve = (count: number): void => {
    if (length + count <= bytes.length) return;
    const larger = new Uint8Array(2 * (length + count));
    larger.set(bytes.subarray(0, length));
    bytes = larger;
  };
  const walk = (rope: Code): void => {
    reserve(rope.length);
    if (rope instanceof Uint8Array) {
      bytes.set(rope, length);
      length += rope.length;
      return;
    }
    for (const part of rope) {
      if (typeof part === "number") {
        if (length === bytes.length) reserve(1);
        bytes[length++] = part;
      } else walk(part);
    }
  };
  walk(code);
  return bytes.slice(0, length);
}

/** Whether this runtime compiles the relaxed vector instructions (WebAssembly 3.0), fused multiply-add among them. */
export function knowsRelaxedSimd(): boolean {
  const module = new ModuleBuilder({ isShared: false, hasRelaxedSimd: true });
  const f = module.function(["v128", "v128", "v128"], ["v128"]);
  f.emit(f.multiplyAdd(f.param(0).get, f.param(1).get, f.param(2).get));
  return WebAssembly.validate(module.bytes());
}
