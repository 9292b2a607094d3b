import { printScan, type Scan, scanBlockBytes, scanFactor, scanRotation, scanStateBytes } from "../kernels/wasm/scan.js";

/** Bytes that are read and scanned at a time: few enough to stay in a cache between the two. */
export const stagingBytes: number = 4 * 2 ** 20;

/** The exponent's bits of an element and what carries into its uppermost bit where all of them are set, in each 32-bit word. */
const exponents: Readonly<Record<string, { readonly mask: number; readonly add: number; readonly top: number }>> = {
  F32: { mask: 0x7fffffff, add: 0x00800000, top: 0x80000000 },
  F16: { mask: 0x7fff7fff, add: 0x04000400, top: 0x80008000 },
  BF16: { mask: 0x7fff7fff, add: 0x00800080, top: 0x80008000 },
};

/** Parts that lie in memory at a time: one is read while another is scanned, and one that lay elsewhere may be copied here for it. */
const roomCount = 3;

/** Memory of a scan in progress. */
interface Staging {
  /** Its rooms, one after the other. */
  readonly bytes: Uint8Array;
  readonly state: Int32Array;
  readonly run: Scan;
}

const free: Staging[] = [];
let compiled: WebAssembly.Module | null | undefined;

/** Null where WebAssembly is not allowed, as by some pages' policies. */
function module(): WebAssembly.Module | null {
  if (compiled === undefined) {
    try {
      compiled = new WebAssembly.Module(printScan());
    } catch {
      compiled = null;
    }
  }
  return compiled;
}

function staging(isPlain: boolean): Staging {
  const found = isPlain ? undefined : free.pop();
  if (found) return found;
  const code = isPlain ? null : module();
  const pages = (roomCount * stagingBytes) / 65536 + 1;
  const memory = code && new WebAssembly.Memory({ initial: pages, maximum: pages });
  const buffer = memory?.buffer ?? new ArrayBuffer(pages * 65536);
  return {
    bytes: new Uint8Array(buffer, 0, roomCount * stagingBytes),
    state: new Int32Array(buffer, roomCount * stagingBytes, scanStateBytes / 4),
    run:
      code && memory
        ? (new WebAssembly.Instance(code, { env: { memory } }).exports["scan"] as unknown as Scan)
        : plainScan(new Int32Array(buffer)),
  };
}

/** `scan` of the module, in JavaScript. */
function plainScan(words: Int32Array): Scan {
  const rotated = (value: number): number => Math.imul((value << scanRotation) | (value >>> (32 - scanRotation)), scanFactor);
  return (address, bytes, stateAt, mask, add) => {
    const state = words.subarray(stateAt / 4, (stateAt + scanStateBytes) / 4);
    const word = (index: number): number => words[index] ?? 0;
    const of = (index: number): number => state[index] ?? 0;
    for (let at = address / 4; at < (address + bytes) / 4; at += scanBlockBytes / 4) {
      for (let lane = 0; lane < 4; lane++) {
        const w = [word(at + lane), word(at + 4 + lane), word(at + 8 + lane), word(at + 12 + lane)] as const;
        const h = [of(lane), of(4 + lane), of(8 + lane), of(12 + lane)] as const;
        for (const each of w) state[16 + lane] = of(16 + lane) | ((each & mask) + add);
        state[lane] = rotated(h[1] ^ w[1]) + h[2];
        state[4 + lane] = rotated(h[2] ^ w[2]) + h[3];
        state[8 + lane] = rotated(h[3] ^ w[3]);
        state[12 + lane] = rotated(h[0] ^ w[0]) + h[1];
      }
    }
  };
}

const seeds = Int32Array.from({ length: 16 }, (_, i) => Math.imul(i + 1, 0x85ebca6b));

/** The 32-bit finalizer of MurmurHash3 (Appleby, public domain): each bit of the result depends on every bit. */
function finalized(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/**
 * Reads bytes once for two ends: a digest of 128 bits of all of them, which any change alters (it is no defence against somebody who looks for
 * two contents of one digest), and the first element that is not finite. Give the memory back with `close`.
 */
export class ContentScan {
  readonly #staging: Staging;
  readonly #isPlain: boolean;
  readonly #dtype: string;
  readonly #exponent: (typeof exponents)[string] | undefined;
  #state: Int32Array = seeds;
  #byteCount = 0;
  #lastRoom = 0;
  /** Index of the first element that is infinite or NaN; null where there is none, and for integers. */
  firstNonFinite: number | null = null;

  /** `dtype`: as safetensors files name it. `isPlain`: without WebAssembly. */
  constructor(dtype: string, isPlain = false) {
    this.#dtype = dtype;
    this.#isPlain = isPlain;
    this.#staging = staging(isPlain);
    this.#exponent = exponents[dtype];
  }

  /** Where the next `length` bytes (at most `stagingBytes`) may be put, so that `take` need not copy them. Not one of the last two. */
  room(length: number): Uint8Array {
    this.#lastRoom = (this.#lastRoom + 1) % roomCount;
    const start = this.#lastRoom * stagingBytes;
    return this.#staging.bytes.subarray(start, start + length);
  }

  /**
   * Takes the next bytes, at most `stagingBytes`; all but the last are a multiple of `scanBlockBytes`. `room`: the one that was meant for them, another
   * may be in use. Returns them, aligned, until that room is given out again.
   */
  take(part: Uint8Array, room: Uint8Array = this.room(part.byteLength)): Uint8Array {
    const { bytes, state, run } = this.#staging;
    const address = room.byteOffset;
    if (part.buffer !== bytes.buffer || part.byteOffset !== address) bytes.set(part, address);
    const padded = Math.ceil(part.byteLength / scanBlockBytes) * scanBlockBytes;
    bytes.fill(0, address + part.byteLength, address + padded);
    const { mask = 0, add = 0, top = 0 } = this.#exponent ?? {};
    state.set(this.#state);
    state.fill(0, 16);
    run(address, padded, roomCount * stagingBytes, mask, add);
    this.#state = state.slice(0, 16);
    const taken = bytes.subarray(address, address + part.byteLength);
    if (this.firstNonFinite === null && state.subarray(16).some((word) => (word & top) !== 0)) this.#locate(taken);
    this.#byteCount += part.byteLength;
    return taken;
  }

  /** Takes bytes of any length, with nothing after them. */
  takeAll(bytes: Uint8Array): this {
    for (let at = 0; at < bytes.byteLength; at += stagingBytes) this.take(bytes.subarray(at, at + stagingBytes));
    return this;
  }

  #locate(bytes: Uint8Array): void {
    const isWide = this.#dtype === "F32";
    const elements = isWide
      ? new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
      : new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
    const exponent = isWide ? 0x7f800000 : this.#dtype === "F16" ? 0x7c00 : 0x7f80;
    this.firstNonFinite = this.#byteCount / (isWide ? 4 : 2) + elements.findIndex((bits) => (bits & exponent) === exponent);
  }

  /** 32 hexadecimal digits of all bytes so far. */
  get digest(): string {
    const folded = [this.#byteCount | 0, Math.floor(this.#byteCount / 2 ** 32), 0x165667b1, 0x27d4eb2f];
    for (let round = 0; round < 2; round++) {
      for (const [i, word] of this.#state.entries()) {
        const at = i % 4;
        folded[at] = finalized((folded[at] ?? 0) ^ word) + (folded[(at + 1) % 4] ?? 0);
      }
    }
    return folded.map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  close(): void {
    if (!this.#isPlain && free.length < 2) free.push(this.#staging);
  }
}

/** The digest of bytes or of a text's UTF-8: 32 hexadecimal digits. */
export function digestOf(content: Uint8Array | string): string {
  const scan = new ContentScan("U8");
  try {
    return scan.takeAll(typeof content === "string" ? new TextEncoder().encode(content) : content).digest;
  } finally {
    scan.close();
  }
}
