import type { DType } from "../../tensor/dtype.js";
import { computeDType, dtypeBytes } from "../../tensor/dtype.js";
import type { PlanSlot, Slot } from "../kernel.js";
import { wgslType } from "./literals.js";

/** One storage binding of a program: a window of a slot, in bytes from the slot's start. The backend clips the last one to the slot. */
export interface WgslBinding {
  readonly slot: Slot;
  readonly offset: number;
  readonly bytes: number;
  readonly mode: "read" | "read_write";
}

/** What bindings may be, from the adapter's limits. */
export interface MemoryLimits {
  readonly maxBindingBytes: number;
  readonly maxBindings: number;
}

interface Access {
  readonly slot: Slot;
  readonly name: string;
  readonly info: PlanSlot;
  hasLoad: boolean;
  hasVectorLoad: boolean;
  hasStore: boolean;
  hasVectorStore: boolean;
}

/** Storage bindings are multiples of this many bytes, so that vec4 loads and whole-word stores may touch the padding. */
export const bindingGranularity = 16;

/**
 * The storage that one program touches. A printer calls the accessor functions that this class names (`load0(i)`, `storeVector1(i, v)`)
 * and `declarations` writes them, once it is known how each slot is used: as array<vec4<T>> where only vectors are stored, as
 * array<atomic<u32>> where elements narrower than a word are stored one by one, split in windows where the slot exceeds a binding, several
 * slots in one binding where they are more than the adapter binds.
 */
export class ProgramMemory {
  readonly #accesses = new Map<Slot, Access>();
  readonly bindings: WgslBinding[] = [];
  /** Whether slots were more than the adapter binds, so that it counts which of them lie side by side. */
  usesPlaces = false;

  constructor(
    readonly slots: readonly PlanSlot[],
    readonly limits: MemoryLimits,
  ) {}

  /** The stored type of a slot. */
  dtype(slot: Slot): DType {
    return this.info(slot).dtype;
  }

  info(slot: Slot): PlanSlot {
    const info = this.slots[slot];
    if (!info) throw new Error(`The plan has no slot ${slot}.`);
    return info;
  }

  #access(slot: Slot): Access {
    const found = this.#accesses.get(slot);
    if (found) return found;
    const access: Access = {
      slot,
      name: String(this.#accesses.size),
      info: this.info(slot),
      hasLoad: false,
      hasVectorLoad: false,
      hasStore: false,
      hasVectorStore: false,
    };
    this.#accesses.set(slot, access);
    return access;
  }

  /** Element `index` (an i32 expression), widened to its compute type. */
  load(slot: Slot, index: string): string {
    const access = this.#access(slot);
    access.hasLoad = true;
    return `load${access.name}(${index})`;
  }

  /** Elements index … index + 3 as a vec4; `index` must be a multiple of 4. */
  loadVector(slot: Slot, index: string): string {
    const access = this.#access(slot);
    access.hasVectorLoad = true;
    return `loadVector${access.name}(${index})`;
  }

  /** A statement that stores one element. */
  store(slot: Slot, index: string, value: string): string {
    const access = this.#access(slot);
    access.hasStore = true;
    return `store${access.name}(${index}, ${value});`;
  }

  /** A statement that stores elements index … index + 3; `index` must be a multiple of 4. */
  storeVector(slot: Slot, index: string, value: string): string {
    const access = this.#access(slot);
    access.hasVectorStore = true;
    return `storeVector${access.name}(${index}, ${value});`;
  }

  /** The declarations of all bindings and accessor functions used so far, and fills `bindings`. */
  declarations(): string {
    const lines: string[] = [];
    for (const members of this.#homes()) lines.push(...this.#declareHome(members));
    return lines.join("\n");
  }

  #windowBytes(): number {
    return Math.floor(this.limits.maxBindingBytes / 256) * 256;
  }

  /**
   * Accesses by the binding that holds them: each its own, until that is more than the adapter binds. Then neighbours in the arena share
   * one, the closest first.
   */
  #homes(): Access[][] {
    const homes = [...this.#accesses.values()].map((access) => [access]);
    const countOf = (home: readonly Access[]): number => Math.ceil(paddedBytes(spanOf(home).bytes) / this.#windowBytes());
    let excess = homes.reduce((sum, home) => sum + countOf(home), 0) - this.limits.maxBindings;
    this.usesPlaces = excess > 0;
    while (excess > 0) {
      const inArena = homes
        .filter((home) => home.every(({ info }) => info.kind === "arena"))
        .sort((a, b) => spanOf(a).start - spanOf(b).start);
      let best: { left: Access[]; right: Access[]; bytes: number } | null = null;
      for (const [i, left] of inArena.entries()) {
        const right = inArena[i + 1];
        if (!right) continue;
        const { bytes } = spanOf([...left, ...right]);
        if (paddedBytes(bytes) <= this.#windowBytes() && (!best || bytes < best.bytes)) best = { left, right, bytes };
      }
      if (!best) break;
      excess -= countOf(best.left) + countOf(best.right) - 1;
      best.left.push(...best.right);
      homes.splice(homes.indexOf(best.right), 1);
    }
    return homes;
  }

  #declareHome(members: readonly Access[]): string[] {
    const [first] = members;
    if (!first) return [];
    const isMerged = members.length > 1;
    const { start, bytes } = isMerged ? spanOf(members) : { start: 0, bytes: first.info.bytes };
    const layouts = members.map(layoutOf);
    const layout: Layout = layouts.includes("atomic") ? "atomic" : isMerged ? "word" : (layouts[0] ?? "word");
    const isNarrow = (access: Access): boolean => dtypeBytes[access.info.dtype] < 4;
    const word = isMerged || isNarrow(first) ? "u32" : wgslType(computeDType(first.info.dtype));
    const element = layout === "atomic" ? "atomic<u32>" : layout === "vector" ? `vec4<${word}>` : word;
    const isWritten = members.some((access) => access.hasStore || access.hasVectorStore);
    const mode = isWritten || first.info.kind === "arena" ? "read_write" : "read";
    const home = first.name;

    const windowBytes = Math.min(paddedBytes(bytes), this.#windowBytes());
    const windowCount = Math.ceil(paddedBytes(bytes) / windowBytes);
    const offsetInSlot = isMerged ? start - startOf(first.info) : 0;
    const lines: string[] = [];
    for (let window = 0; window < windowCount; window++) {
      const offset = window * windowBytes;
      lines.push(`@group(0) @binding(${this.bindings.length}) var<storage, ${mode}> memory${home}_${window}: array<${element}>;`);
      this.bindings.push({
        slot: first.slot,
        offset: offsetInSlot + offset,
        bytes: Math.min(windowBytes, paddedBytes(bytes) - offset),
        mode,
      });
    }

    const reach = windowsOf(home, layout, windowCount, windowBytes / (layout === "vector" ? 16 : 4));
    if (windowCount > 1) {
      lines.push(`fn read${home}(i: i32) -> ${layout === "atomic" ? "u32" : element} {\n${reach.readBody}\n}`);
      if (isWritten && layout !== "atomic") lines.push(`fn write${home}(i: i32, v: ${element}) {\n${reach.writeBody}\n}`);
    }
    if (layout === "atomic") lines.push(`fn patch${home}(i: i32, mask: u32, bits: u32) {\n${reach.patchBody}\n}`);

    for (const access of members) {
      // In a shared binding each slot starts some words in, and all words are u32.
      const base = isMerged ? (startOf(access.info) - start) / 4 : 0;
      const type = wgslType(computeDType(access.info.dtype));
      const isCast = isMerged || layout === "atomic" ? !isNarrow(access) && type !== "u32" : false;
      const shifted = (index: string): string => (base === 0 ? index : `(${index}) + ${base}`);
      const at: At = (index) => (isCast ? `bitcast<${type}>(${reach.at(shifted(index))})` : reach.at(shifted(index)));
      const put: Put = (index, value) => {
        const bits = isCast ? `bitcast<u32>(${value})` : value;
        return layout === "atomic" ? `patch${home}(${shifted(index)}, 4294967295u, ${bits});` : reach.put(shifted(index), bits);
      };
      const patch: Patch = (index, mask, bits) => `patch${home}(${shifted(index)}, ${mask}, ${bits});`;
      lines.push(...accessors(access, layout, at, put, patch));
    }
    return lines;
  }

  /** Conversion functions that the accessors of these dtypes call. */
  conversions(): string {
    const dtypes = new Set([...this.#accesses.values()].map((access) => access.info.dtype));
    return [dtypes.has("f16") ? halfConversions : "", dtypes.has("bf16") ? bfloatConversions : ""].filter(Boolean).join("\n");
  }
}

type Layout = "word" | "vector" | "atomic";
type At = (index: string) => string;
type Put = (index: string, value: string) => string;
type Patch = (index: string, mask: string, bits: string) => string;

function paddedBytes(bytes: number): number {
  return Math.max(bindingGranularity, Math.ceil(bytes / bindingGranularity) * bindingGranularity);
}

function startOf(info: PlanSlot): number {
  return info.kind === "arena" ? info.offset : 0;
}

/** The bytes from the first to the last member's end. */
function spanOf(members: readonly Access[]): { start: number; bytes: number } {
  const start = Math.min(...members.map(({ info }) => startOf(info)));
  const end = Math.max(...members.map(({ info }) => startOf(info) + info.bytes));
  return { start, bytes: end - start };
}

function layoutOf(access: Access): Layout {
  if (dtypeBytes[access.info.dtype] < 4) return access.hasStore ? "atomic" : "word";
  // Storing one component of a vector may touch its neighbours, which other threads own.
  return (access.hasVectorLoad || access.hasVectorStore) && !access.hasStore ? "vector" : "word";
}

/** Word (or vector) `i` of a binding that may be split in windows. */
function windowsOf(
  home: string,
  layout: Layout,
  windowCount: number,
  windowElements: number,
): { at: At; put: Put; readBody: string; writeBody: string; patchBody: string } {
  const isSingle = windowCount === 1;
  const read = (code: string): string => (layout === "atomic" ? `atomicLoad(&${code})` : code);
  const inWindows = (statement: (code: string) => string): string =>
    Array.from({ length: windowCount }, (_, window) => {
      const code = statement(`memory${home}_${window}[i - ${window * windowElements}]`);
      return window === windowCount - 1 ? `  ${code}` : `  if (i < ${(window + 1) * windowElements}) { ${code} return; }`;
    }).join("\n");
  return {
    at: (index) => (isSingle ? read(`memory${home}_0[${index}]`) : `read${home}(${index})`),
    put: (index, value) => (isSingle ? `memory${home}_0[${index}] = ${value};` : `write${home}(${index}, ${value});`),
    readBody: inWindows((code) => `return ${read(code)};`).replaceAll("; return; }", "; }"),
    writeBody: inWindows((code) => `${code} = v;`),
    patchBody: inWindows((code) => `atomicAnd(&${code}, ~mask); atomicOr(&${code}, bits);`),
  };
}

function accessors(access: Access, layout: Layout, at: At, put: Put, patch: Patch): string[] {
  const { name, info } = access;
  const type = wgslType(computeDType(info.dtype));
  const lines: string[] = [];
  if (access.hasLoad) lines.push(`fn load${name}(i: i32) -> ${type} { ${loadBody(info.dtype, layout, at)} }`);
  if (access.hasVectorLoad) lines.push(`fn loadVector${name}(i: i32) -> vec4<${type}> { ${loadVectorBody(info.dtype, layout, at)} }`);
  if (access.hasStore) lines.push(`fn store${name}(i: i32, v: ${type}) { ${storeBody(info.dtype, put, patch)} }`);
  if (access.hasVectorStore) lines.push(`fn storeVector${name}(i: i32, v: vec4<${type}>) { ${storeVectorBody(info.dtype, layout, put)} }`);
  return lines;
}

function loadBody(dtype: DType, layout: Layout, at: At): string {
  switch (dtype) {
    case "f32":
    case "i32":
    case "u32":
      // A component of a vector in memory is an address like any other, no vector is loaded.
      return layout === "vector" ? `return ${at("i >> 2u")}[i & 3];` : `return ${at("i")};`;
    case "f16":
      return `return fromHalf(${at("i >> 1u")} >> (16u * u32(i & 1)));`;
    case "bf16":
      return `return fromBfloat(${at("i >> 1u")} >> (16u * u32(i & 1)));`;
    case "u8":
      return `return (${at("i >> 2u")} >> (8u * u32(i & 3))) & 255u;`;
    case "bool":
      return `return ((${at("i >> 2u")} >> (8u * u32(i & 3))) & 255u) != 0u;`;
  }
}

function loadVectorBody(dtype: DType, layout: Layout, at: At): string {
  switch (dtype) {
    case "f32":
    case "i32":
    case "u32":
      if (layout === "vector") return `return ${at("i >> 2u")};`;
      return `return vec4<${wgslType(computeDType(dtype))}>(${["i", "i + 1", "i + 2", "i + 3"].map(at).join(", ")});`;
    case "f16":
    case "bf16": {
      const from = dtype === "f16" ? "fromHalf" : "fromBfloat";
      return `let w = i >> 1u; let a = ${at("w")}; let b = ${at("w + 1")}; return vec4f(${from}(a), ${from}(a >> 16u), ${from}(b), ${from}(b >> 16u));`;
    }
    case "u8":
      return `return (vec4u(${at("i >> 2u")}) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u);`;
    case "bool":
      return `return ((vec4u(${at("i >> 2u")}) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u)) != vec4u(0u);`;
  }
}

function storeBody(dtype: DType, put: Put, patch: Patch): string {
  switch (dtype) {
    case "f32":
    case "i32":
    case "u32":
      return put("i", "v");
    case "f16":
    case "bf16":
      return `let shift = 16u * u32(i & 1); ${patch("i >> 1u", "65535u << shift", `${dtype === "f16" ? "toHalf" : "toBfloat"}(v) << shift`)}`;
    case "u8":
      return `let shift = 8u * u32(i & 3); ${patch("i >> 2u", "255u << shift", "(v & 255u) << shift")}`;
    case "bool":
      return `let shift = 8u * u32(i & 3); ${patch("i >> 2u", "255u << shift", "select(0u, 1u, v) << shift")}`;
  }
}

/** A thread that stores four consecutive elements owns their words, so that it need not be atomic for its own sake. */
function storeVectorBody(dtype: DType, layout: Layout, put: Put): string {
  switch (dtype) {
    case "f32":
    case "i32":
    case "u32":
      if (layout === "vector") return put("i >> 2u", "v");
      return ["x", "y", "z", "w"].map((component, lane) => put(lane === 0 ? "i" : `i + ${lane}`, `v.${component}`)).join(" ");
    case "f16":
    case "bf16": {
      const to = dtype === "f16" ? "toHalf" : "toBfloat";
      return `${put("i >> 1u", `${to}(v.x) | (${to}(v.y) << 16u)`)} ${put("(i >> 1u) + 1", `${to}(v.z) | (${to}(v.w) << 16u)`)}`;
    }
    case "u8":
    case "bool": {
      const bytes = dtype === "u8" ? "v & vec4u(255u)" : "select(vec4u(0u), vec4u(1u), v)";
      return `let b = (${bytes}) << vec4u(0u, 8u, 16u, 24u); ${put("i >> 2u", "(b.x | b.y) | (b.z | b.w)")}`;
    }
  }
}

// f16 by hand where built-ins may flush subnormals or round otherwise: nearest, ties to even, as toF16Bits does.
const halfConversions = `fn fromHalf(word: u32) -> f32 {
  let bits = word & 32767u;
  let normal = bitcast<f32>((bits << 13u) + 939524096u);
  let tiny = f32(bits) * 5.9604644775390625e-8;
  let special = bitcast<f32>((bits << 13u) | 2139095040u);
  let magnitude = select(select(normal, tiny, bits < 1024u), special, bits >= 31744u);
  return select(magnitude, -magnitude, (word & 32768u) != 0u);
}
fn toHalf(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let sign = (bits >> 16u) & 32768u;
  let magnitude = bits & 2147483647u;
  let rounded = (magnitude + 4095u + ((magnitude >> 13u) & 1u)) - 939524096u;
  // Adding 0.5 puts the subnormal's unit 2^-24 at the last bit of the sum, and rounds to even on the way.
  let tiny = bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 1056964608u;
  let finite = select(min(rounded >> 13u, 31744u), tiny, magnitude < 947912704u);
  let large = select(finite, 31744u, magnitude >= 1199570944u);
  return sign | select(large, 32256u, magnitude > 2139095040u);
}`;

const bfloatConversions = `fn fromBfloat(word: u32) -> f32 { return bitcast<f32>(word << 16u); }
fn toBfloat(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let rounded = (bits + 32767u + ((bits >> 16u) & 1u)) >> 16u;
  return select(rounded, ((bits >> 16u) | 64u) & 65535u, (bits & 2147483647u) > 2139095040u);
}`;
