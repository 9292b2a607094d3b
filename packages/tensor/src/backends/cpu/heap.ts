import type { BackendCounters } from "../../graph/backend.js";
import { DeviceError, OutOfMemoryError, showBytes } from "../../tensor/errors.js";
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
 * grows when no free block is large enough, and never shrinks; the budget limits what is in use. Work is done in the order in which it was
 * enqueued, so that a block which was given back serves work that is enqueued from then on at once, and others when the work before is done.
 */
export class Heap {
  readonly memory: WebAssembly.Memory;
  /** Free blocks by address, ascending. */
  readonly #free: { address: number; bytes: number }[] = [];
  readonly #used = new Map<number, number>();
  /** Blocks that are given back but still in the hands of what is enqueued, in the order in which they were. */
  #pending: { address: number; bytes: number; readonly ticket: number }[] = [];
  #top: number;
  #bytes: Uint8Array;
  #words: Int32Array;
  /** Called before JavaScript sees the memory: waits for threads that still read or write it. */
  beforeAccess: () => void = () => undefined;
  /** Called when pending blocks are needed: does what is enqueued, where the thread may wait for it. */
  reclaim: () => void = () => undefined;
  /** Whether all that was enqueued up to a ticket is done. */
  isDone: (ticket: number) => boolean = () => true;

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

  /** Memory that may be touched at once. Throws OutOfMemoryError when the budget does not hold it. */
  allocate(bytes: number): number {
    const size = this.#sizeOf(bytes);
    this.#settle();
    if (this.counters.bytesInUse + this.#pendingBytes() + size > this.budgetBytes) {
      this.#reclaim();
      if (this.#pending.length > 0) throw this.#outOfMemory(size);
    }
    return this.#use(this.#takeFrom(this.#free, size) ?? this.#extend(size), size);
  }

  /**
   * Memory that only what is enqueued from now on touches: what was enqueued before may still use it. Throws OutOfMemoryError when the budget
   * does not hold it.
   */
  allocateInOrder(bytes: number): number {
    const size = this.#sizeOf(bytes);
    this.#settle();
    const address = this.#takeFrom(this.#free, size) ?? this.#takeFrom(this.#pending, size) ?? this.#extend(size);
    return this.#use(address, size);
  }

  #sizeOf(bytes: number): number {
    const size = roundUp(Math.max(bytes, 1), alignment);
    if (this.counters.bytesInUse + size > this.budgetBytes) throw this.#outOfMemory(size);
    return size;
  }

  #use(address: number, size: number): number {
    this.#used.set(address, size);
    this.counters.bytesInUse += size;
    this.counters.peakBytes = Math.max(this.counters.peakBytes, this.counters.bytesInUse);
    return address;
  }

  /** The beginning of the smallest block of a list that is large enough; null where none is. */
  #takeFrom(blocks: { address: number; bytes: number }[], size: number): number | null {
    let best = -1;
    for (let i = 0; i < blocks.length; i++) {
      const bytes = blocks[i]?.bytes ?? 0;
      if (bytes >= size && (best < 0 || bytes < (blocks[best]?.bytes ?? 0))) best = i;
    }
    const block = blocks[best];
    if (!block) return null;
    const { address } = block;
    if (block.bytes === size) blocks.splice(best, 1);
    else {
      block.address += size;
      block.bytes -= size;
    }
    return address;
  }

  /** Gives a block back, which nothing uses any more once all up to the ticket is done; 0: from now on. */
  free(address: number, ticket = 0): void {
    const bytes = this.#used.get(address);
    if (bytes === undefined) throw new Error(`Heap: nothing is allocated at ${address}. Free a buffer once only.`);
    this.#used.delete(address);
    this.counters.bytesInUse -= bytes;
    if (this.isDone(ticket)) this.#join(address, bytes);
    else this.#pending.push({ address, bytes, ticket });
  }

  #pendingBytes(): number {
    return this.#pending.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Frees what is done with. */
  #settle(): void {
    // In the order of their tickets.
    let count = 0;
    for (const { address, bytes, ticket } of this.#pending) {
      if (!this.isDone(ticket)) break;
      this.#join(address, bytes);
      count++;
    }
    if (count > 0) this.#pending = this.#pending.slice(count);
  }

  #reclaim(): void {
    this.reclaim();
    this.#settle();
  }

  /** Puts a block among the free ones, joined with its neighbours. */
  #join(address: number, bytes: number): void {
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

  /** Memory beyond all blocks. */
  #extend(size: number): number {
    if (this.#pending.length > 0 && this.#top + size + guardBytes > maxHeapBytes) {
      this.#reclaim();
      const address = this.#takeFrom(this.#free, size);
      if (address !== null) return address;
    }
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
      this.budgetBytes < maxHeapBytes
        ? "use a smaller batch or sequence, or quantize the weights (nf4)"
        : "WebAssembly's memory ends there. Use a smaller batch or sequence, quantize the weights (nf4), or compute on a GPU (webgpu), whose memory is its own",
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
