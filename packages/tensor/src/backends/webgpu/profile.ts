import type { KernelTime } from "../../graph/backend.js";
import type { KernelStatistics } from "../../kernels/statistics.js";
import { mapRead, usage } from "./constants.js";

/** What a timed pass runs. */
interface Timed {
  readonly name: string;
  readonly work?: KernelStatistics;
}

interface Batch {
  readonly kernels: Timed[];
  readonly queries: GPUQuerySet;
  readonly resolved: GPUBuffer;
  readonly staging: GPUBuffer;
}

/** Kernels of one batch; a query set holds two timestamps each. */
const batchSize = 1024;

/** Times kernels by `timestamp-query`. */
export class Profiler {
  readonly #batches: Batch[] = [];

  constructor(readonly device: GPUDevice) {}

  /** The descriptor of the next kernel's pass. */
  begin(kernel: Timed): GPUComputePassDescriptor {
    let batch = this.#batches.at(-1);
    if (!batch || batch.kernels.length === batchSize) {
      const size = batchSize * 16;
      batch = {
        kernels: [],
        queries: this.device.createQuerySet({ type: "timestamp", count: batchSize * 2 }),
        resolved: this.device.createBuffer({ size, usage: usage.queryResolve | usage.copySource }),
        staging: this.device.createBuffer({ size, usage: usage.mapRead | usage.copyTarget }),
      };
      this.#batches.push(batch);
    }
    const at = batch.kernels.push(kernel) - 1;
    return { timestampWrites: { querySet: batch.queries, beginningOfPassWriteIndex: at * 2, endOfPassWriteIndex: at * 2 + 1 } };
  }

  /** Times of all kernels since the last call, in order of running. */
  async take(): Promise<KernelTime[]> {
    const times: KernelTime[] = [];
    for (const { kernels, queries, resolved, staging } of this.#batches.splice(0)) {
      const encoder = this.device.createCommandEncoder({ label: "profile" });
      encoder.resolveQuerySet(queries, 0, kernels.length * 2, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, staging, 0, kernels.length * 16);
      this.device.queue.submit([encoder.finish()]);
      await staging.mapAsync(mapRead);
      const ticks = new BigUint64Array(staging.getMappedRange(0, kernels.length * 16));
      for (const [i, kernel] of kernels.entries()) {
        const [start = 0n, end = 0n] = ticks.subarray(i * 2, i * 2 + 2);
        times.push({ ...kernel, startMs: Number(start) / 1e6, ms: Number(end - start) / 1e6 });
      }
      staging.unmap();
      for (const buffer of [resolved, staging]) buffer.destroy();
      queries.destroy();
    }
    return times;
  }
}
