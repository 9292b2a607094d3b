import type { BackendCounters } from "../../graph/backend.js";
import type { DeviceBuffer } from "./buffers.js";
import { sizeClass } from "./buffers.js";
import { mapRead, usage } from "./constants.js";

/** Bytes handed to the queue at a time: Dawn holds a copy of each until the next submit. */
const writeChunk = 32 * 2 ** 20;

/** Free staging bytes that are kept for the next reads. */
const stagingBound = 64 * 2 ** 20;

const patchCode = `@group(0) @binding(0) var<storage, read_write> memory: array<u32>;
@group(0) @binding(1) var<storage, read> patch_words: array<u32>;
@compute @workgroup_size(1) fn main() {
  let i = patch_words[0];
  memory[i] = (memory[i] & ~patch_words[1]) | patch_words[2];
}`;

/** Moves bytes between JavaScript and device memory. WebGPU moves whole words; single bytes are patched in by a small program. */
export class Transfers {
  readonly #staging = new Map<number, GPUBuffer[]>();
  #stagingBytes = 0;
  #patch: GPUComputePipeline | null = null;

  constructor(
    readonly device: GPUDevice,
    readonly counters: BackendCounters,
  ) {}

  write(buffer: DeviceBuffer, data: Uint8Array, byteOffset: number): void {
    const head = Math.min((4 - (byteOffset % 4)) % 4, data.byteLength);
    if (head > 0) this.#patchWord(buffer, byteOffset, data.subarray(0, head));
    const whole = Math.floor((data.byteLength - head) / 4) * 4;
    // WebGPU takes no shared memory.
    const isShared = typeof SharedArrayBuffer !== "undefined" && data.buffer instanceof SharedArrayBuffer;
    for (let at = 0; at < whole; at += writeChunk) {
      const count = Math.min(writeChunk, whole - at);
      const part = data.subarray(head + at, head + at + count);
      this.device.queue.writeBuffer(buffer.gpu, byteOffset + head + at, (isShared ? part.slice() : part) as Uint8Array<ArrayBuffer>);
      if (whole > writeChunk) this.device.queue.submit([]);
    }
    const tail = data.subarray(head + whole);
    if (tail.byteLength === 0) return;
    const at = byteOffset + head + whole;
    if (at + tail.byteLength >= buffer.bytes) {
      const padded = new Uint8Array(4);
      padded.set(tail);
      this.device.queue.writeBuffer(buffer.gpu, at, padded);
    } else this.#patchWord(buffer, at, tail);
  }

  #patchWord(buffer: DeviceBuffer, byteOffset: number, bytes: Uint8Array): void {
    this.#patch ??= this.device.createComputePipeline({
      label: "patch",
      layout: "auto",
      compute: { module: this.device.createShaderModule({ label: "patch", code: patchCode }) },
    });
    const word = Math.floor(byteOffset / 4);
    let [mask, bits] = [0, 0];
    for (const [i, byte] of bytes.entries()) {
      const shift = 8 * ((byteOffset % 4) + i);
      mask |= 255 << shift;
      bits |= byte << shift;
    }
    const words = this.device.createBuffer({ label: "patch", size: 16, usage: usage.storage | usage.copyTarget });
    this.device.queue.writeBuffer(words, 0, Uint32Array.of(word, mask, bits, 0));
    const group = this.device.createBindGroup({
      layout: this.#patch.getBindGroupLayout(0),
      entries: [
        { binding: 0, resource: { buffer: buffer.gpu } },
        { binding: 1, resource: { buffer: words } },
      ],
    });
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(this.#patch);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1);
    pass.end();
    this.device.queue.submit([encoder.finish()]);
    words.destroy();
  }

  /** Enqueues the copy at once; what runs later does not change the result. */
  async read(source: GPUBuffer, byteLength: number, byteOffset: number): Promise<Uint8Array> {
    const skip = byteOffset % 4;
    const count = Math.ceil((skip + byteLength) / 4) * 4;
    const capacity = sizeClass(count);
    const staging = this.#takeStaging(capacity);
    const encoder = this.device.createCommandEncoder({ label: "read" });
    encoder.copyBufferToBuffer(source, byteOffset - skip, staging, 0, count);
    this.device.queue.submit([encoder.finish()]);
    await staging.mapAsync(mapRead, 0, count);
    const bytes = new Uint8Array(staging.getMappedRange(0, count)).slice(skip, skip + byteLength);
    staging.unmap();
    this.#keepStaging(staging, capacity);
    return bytes;
  }

  #takeStaging(capacity: number): GPUBuffer {
    const pooled = this.#staging.get(capacity)?.pop();
    if (pooled) {
      this.#stagingBytes -= capacity;
      return pooled;
    }
    this.counters.buffersCreated++;
    return this.device.createBuffer({ label: "staging", size: capacity, usage: usage.mapRead | usage.copyTarget });
  }

  #keepStaging(staging: GPUBuffer, capacity: number): void {
    if (this.#stagingBytes + capacity > stagingBound) {
      staging.destroy();
      return;
    }
    this.#stagingBytes += capacity;
    const list = this.#staging.get(capacity);
    if (list) list.push(staging);
    else this.#staging.set(capacity, [staging]);
  }
}
