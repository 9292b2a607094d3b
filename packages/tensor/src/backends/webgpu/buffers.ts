import type { BackendBuffer, BackendCounters } from "../../graph/backend.js";
import { DeviceError, OutOfMemoryError, showBytes } from "../../tensor/errors.js";
import { usage } from "./constants.js";

/** A tensor's memory: a whole GPUBuffer of at least `bytes`. */
export interface DeviceBuffer extends BackendBuffer {
  readonly id: number;
  readonly capacity: number;
  readonly gpu: GPUBuffer;
  isFree: boolean;
}

/**
 * The next capacity that the pool keeps: a multiple of 256, in sixteen steps from each power of two to the next, so that at most
 * a sixteenth is lost.
 */
export function sizeClass(bytes: number): number {
  const least = Math.max(bytes, 256);
  const step = Math.max(256, 2 ** (Math.ceil(Math.log2(least)) - 5));
  return Math.ceil(least / step) * step;
}

/** Free buffers by capacity. WebGPU gives memory of dropped buffers back only after garbage collection, so they are reused and destroyed here. */
export class BufferPool {
  readonly #free = new Map<number, DeviceBuffer[]>();
  #pooledBytes = 0;
  #nextId = 0;

  constructor(
    readonly device: GPUDevice,
    readonly counters: BackendCounters,
    readonly budgetBytes: number,
    readonly maxBufferBytes: number,
  ) {}

  /** Bytes that wait for reuse. */
  get pooledBytes(): number {
    return this.#pooledBytes;
  }

  /** Throws DeviceError when the buffer is larger than the adapter or the budget allows. */
  allocate(bytes: number): DeviceBuffer {
    const capacity = Math.min(sizeClass(bytes), Math.max(this.maxBufferBytes, 256));
    this.reserve(Math.max(bytes, capacity));
    const list = this.#free.get(capacity);
    const pooled = list?.pop();
    if (pooled) {
      this.#pooledBytes -= capacity;
      pooled.isFree = false;
      return Object.assign(pooled, { bytes });
    }
    const gpu = this.device.createBuffer({
      label: `${bytes} bytes`,
      size: capacity,
      usage: usage.storage | usage.copySource | usage.copyTarget,
    });
    this.counters.buffersCreated++;
    return { id: this.#nextId++, bytes, capacity, gpu, isFree: false };
  }

  /** Counts bytes as in use, after making room among the free buffers. Throws DeviceError when they do not fit. */
  reserve(bytes: number): void {
    if (bytes > this.maxBufferBytes) {
      throw new DeviceError(
        `A buffer of ${showBytes(bytes)} is larger than this adapter's ${showBytes(this.maxBufferBytes)}. Use a smaller batch or shape.`,
        "webgpu",
      );
    }
    const { counters } = this;
    if (counters.bytesInUse + bytes > this.budgetBytes) {
      throw new OutOfMemoryError(
        `webgpu: out of memory: ${showBytes(bytes)} more than the ${showBytes(counters.bytesInUse)} in use do not fit the budget of ${showBytes(this.budgetBytes)}`,
        "use a smaller batch or sequence, or raise budgetBytes",
        counters.bytesInUse + bytes - this.budgetBytes,
        "webgpu",
      );
    }
    // The wanted buffer may be among the pooled ones, which then only changes sides.
    if (counters.bytesInUse + bytes + this.#pooledBytes > this.budgetBytes)
      this.trim(Math.max(0, this.budgetBytes - counters.bytesInUse - bytes));
    counters.bytesInUse += bytes;
    counters.peakBytes = Math.max(counters.peakBytes, counters.bytesInUse);
  }

  release(bytes: number): void {
    this.counters.bytesInUse -= bytes;
  }

  free(buffer: DeviceBuffer): void {
    if (buffer.isFree) return;
    buffer.isFree = true;
    this.release(buffer.capacity);
    const list = this.#free.get(buffer.capacity);
    if (list) list.push(buffer);
    else this.#free.set(buffer.capacity, [buffer]);
    this.#pooledBytes += buffer.capacity;
    this.trim(Math.max(this.counters.peakBytes / 2, 64 * 2 ** 20));
  }

  /** Destroys free buffers, largest first, until at most `bytes` wait for reuse. */
  trim(bytes: number): void {
    if (this.#pooledBytes <= bytes) return;
    for (const capacity of [...this.#free.keys()].sort((a, b) => b - a)) {
      const list = this.#free.get(capacity) ?? [];
      while (list.length > 0 && this.#pooledBytes > bytes) {
        list.shift()?.gpu.destroy();
        this.#pooledBytes -= capacity;
      }
      if (list.length === 0) this.#free.delete(capacity);
    }
  }
}
