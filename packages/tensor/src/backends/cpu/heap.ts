import { DeviceError, OutOfMemoryError, showBytes } from "../../tensor/errors.js";
import type { BackendCounters } from "../backend.js";
import { roundUp } from "./round.js";

/** Every block starts at a multiple of this. */
const alignment = 256;
const pageBytes = 65536;
/** Vector loads may read a little past the end of a buffer; the last bytes of the memory are therefore never given out. */
const guardBytes = 64;

/** Memory that WebAssembly can address, less a page. */
export const maxHeapBytes: number = 65535 * pageBytes;

/**
 * The one WebAssembly memory that buffers, plans and threads share, and its allocator: best fit, neighbouring free blocks joined. It
 * grows when no free block is large enough, and never shrinks; the budget limits what is in use.
 */
export class Heap {
  readonly memory: WebAssembly.Memory;
  /** Free blocks by address, ascending. */
  readonly #free: { address: number; bytes: number }[] = [];
  readonly #used = new Map<number, number>();
  /** Blocks that are given back but still in the hands of what is enqueued. */
  readonly #retired = new Map<number, number>();
  #retiredBytes = 0;
  #top: number;
  #bytes: Uint8Array;
  #words: Int32Array;
  /** Called before JavaScript sees the memory: waits for threads that still read or write it. */
  beforeAccess: () => void = () => undefined;
  /** Called when retired blocks are needed: does what is enqueued, which recycles them, where the thread may wait for it. */
  reclaim: () => void = () => undefined;

  constructor(
    readonly isShared: boolean,
    readonly reservedBytes: number,
    readonly budgetBytes: number,
    readonly counters: BackendCounters,
  ) {
    this.memory = newMemory(isShared);
    this.#top = roundUp(reservedBytes, alignment);
    this.#bytes = new Uint8Array(this.memory.buffer);
    this.#words = new Int32Array(this.memory.buffer);
  }

  /** The memory as bytes; a view that is valid until the next allocation. */
  get bytes(): Uint8Array {
    this.beforeAccess();
    return this.#bytes;
  }

  /** The memory as 32-bit words. */
  get words(): Int32Array {
    this.beforeAccess();
    return this.#words;
  }

  allocate(bytes: number): number {
    const size = roundUp(Math.max(bytes, 1), alignment);
    if (this.counters.bytesInUse + size > this.budgetBytes) throw this.#outOfMemory(size);
    if (this.counters.bytesInUse + this.#retiredBytes + size > this.budgetBytes) {
      this.reclaim();
      if (this.#retiredBytes > 0) throw this.#outOfMemory(size);
    }
    let best = -1;
    for (let i = 0; i < this.#free.length; i++) {
      const block = this.#free[i];
      if (block && block.bytes >= size && (best < 0 || block.bytes < (this.#free[best]?.bytes ?? 0))) best = i;
    }
    const block = this.#free[best];
    let address: number;
    if (block) {
      address = block.address;
      if (block.bytes === size) this.#free.splice(best, 1);
      else {
        block.address += size;
        block.bytes -= size;
      }
    } else {
      if (this.#retiredBytes > 0 && this.#top + size + guardBytes > maxHeapBytes) {
        this.reclaim();
        if (this.#retiredBytes === 0) return this.allocate(size);
      }
      address = this.#extend(size);
    }
    this.#used.set(address, size);
    this.counters.bytesInUse += size;
    this.counters.peakBytes = Math.max(this.counters.peakBytes, this.counters.bytesInUse);
    return address;
  }

  free(address: number): void {
    this.retire(address);
    this.recycle(address);
  }

  /** Gives a block back; others get it after `recycle`. */
  retire(address: number): void {
    const bytes = this.#used.get(address);
    if (bytes === undefined) throw new Error(`Heap: nothing is allocated at ${address}. Free a buffer once only.`);
    this.#used.delete(address);
    this.counters.bytesInUse -= bytes;
    this.#retired.set(address, bytes);
    this.#retiredBytes += bytes;
  }

  /** Nothing uses a retired block any more. */
  recycle(address: number): void {
    const bytes = this.#retired.get(address);
    if (bytes === undefined) throw new Error(`Heap: nothing is retired at ${address}.`);
    this.#retired.delete(address);
    this.#retiredBytes -= bytes;
    let low = 0;
    let high = this.#free.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#free[middle]?.address ?? 0) < address) low = middle + 1;
      else high = middle;
    }
    const before = this.#free[low - 1];
    const after = this.#free[low];
    const joinsBefore = before !== undefined && before.address + before.bytes === address;
    const joinsAfter = after !== undefined && address + bytes === after.address;
    if (joinsBefore) {
      before.bytes += bytes + (joinsAfter ? after.bytes : 0);
      if (joinsAfter) this.#free.splice(low, 1);
    } else if (joinsAfter) {
      after.address = address;
      after.bytes += bytes;
    } else this.#free.splice(low, 0, { address, bytes });
  }

  #extend(size: number): number {
    // A free block that ends at the top is used and lengthened.
    const last = this.#free.at(-1);
    const address = last && last.address + last.bytes === this.#top ? last.address : this.#top;
    const top = address + size;
    // Free blocks, each too small, may lie below.
    if (top + guardBytes > maxHeapBytes) throw this.#outOfMemory(size);
    const missing = top + guardBytes - this.#bytes.byteLength;
    if (missing > 0) this.#grow(missing);
    if (address !== this.#top) this.#free.pop();
    this.#top = top;
    this.counters.buffersCreated++;
    return address;
  }

  #outOfMemory(size: number): OutOfMemoryError {
    const { bytesInUse } = this.counters;
    return new OutOfMemoryError(
      `cpu: out of memory: ${showBytes(size)} more than the ${showBytes(bytesInUse)} in use do not fit the budget of ${showBytes(this.budgetBytes)}`,
      "use a smaller batch or sequence, or store weights as bf16",
      bytesInUse + size - this.budgetBytes,
      "cpu",
    );
  }

  #grow(missing: number): void {
    const step = Math.max(missing, Math.min(this.#bytes.byteLength / 4, 256 * 2 ** 20), 16 * 2 ** 20);
    for (const bytes of [step, missing]) {
      const pages = Math.min(Math.ceil(bytes / pageBytes), 65536 - this.#bytes.byteLength / pageBytes);
      try {
        this.memory.grow(pages);
        this.#bytes = new Uint8Array(this.memory.buffer);
        this.#words = new Int32Array(this.memory.buffer);
        if (pages * pageBytes >= missing) return;
      } catch {
        // Try again with no more than is needed.
      }
    }
    throw new DeviceError(
      `cpu: the system gives no more memory beyond ${showBytes(this.#bytes.byteLength)}. Close other programs, or use a smaller model or batch.`,
      "cpu",
    );
  }
}

/** A browser may refuse to reserve 4 GiB of addresses; it then gets a smaller maximum. */
function newMemory(isShared: boolean): WebAssembly.Memory {
  let refusal: unknown;
  for (const maximum of [65536, 32768, 16384]) {
    try {
      return new WebAssembly.Memory({ initial: 16, maximum, shared: isShared });
    } catch (error) {
      refusal = error;
    }
  }
  throw new DeviceError(
    `cpu: no WebAssembly memory could be made (${String(refusal)}). Close other pages or programs that hold much memory.`,
    "cpu",
  );
}
