import type { Backend, BackendBuffer, Executable } from "../graph/backend.js";
import { Device } from "../graph/device.js";
import type { Executor, Program, Target } from "../graph/executor.js";
import { liveInputs, realizedStorage } from "../graph/live.js";
import { type Node, topological } from "../graph/node.js";
import { interpret } from "../graph/reference.js";
import type { Storage } from "../graph/storage.js";
import { computeDType, decode, encode } from "../tensor/dtype.js";
import { sizeOf } from "../tensor/shape.js";

/** Memory of the reference device: float64 values once something was computed, bytes while they are as written. */
interface ReferenceBuffer extends BackendBuffer {
  data: Uint8Array;
  /** Unrounded results, so that chains of realized tensors keep float64 accuracy. */
  values: Float64Array | null;
}

const asReference = (buffer: BackendBuffer): ReferenceBuffer => buffer as ReferenceBuffer;

/**
 * A device without kernels: graphs are interpreted node by node in float64 (`graph/reference.ts`). Slow on purpose; for tests, and
 * to settle which of two backends is right.
 */
export function referenceDevice(): Device {
  const counters = { buffersCreated: 0, pipelinesCreated: 0, plansPrepared: 0, kernelsRun: 0, bytesInUse: 0, peakBytes: 0 };
  const unsupported = (): never => {
    throw new Error("The reference device runs graphs, not plans.");
  };
  const backend: Backend = {
    name: "reference",
    description: "float64 interpreter",
    limits: { maxBufferBytes: 2 ** 31, budgetBytes: 2 ** 33 },
    counters,
    supports: () => false,
    allocate: (bytes): ReferenceBuffer => {
      counters.buffersCreated++;
      return { bytes, data: new Uint8Array(bytes), values: null };
    },
    free: () => {},
    write(buffer, data, byteOffset = 0) {
      const target = asReference(buffer);
      target.data.set(data, byteOffset);
      target.values = null;
    },
    async read(buffer, byteLength, byteOffset = 0) {
      return asReference(buffer).data.slice(byteOffset, byteOffset + byteLength);
    },
    prepare: (): Executable => unsupported(),
    run: unsupported,
    finish: async () => {},
    dispose: () => {},
  };
  return new Device("reference", backend, referenceExecutor);
}

const referenceExecutor: Executor = {
  prepare(device: Device, targets: readonly Target[]): Program {
    const roots = targets.map((target) => target.value);
    const stored = new Map<Node, Storage>();
    for (const node of topological(roots, liveInputs)) {
      const storage = realizedStorage(node);
      if (storage) stored.set(node, storage);
    }
    const inputs = [...new Set(stored.values())];
    return {
      inputs,
      run(given, storages) {
        const bound = new Map(inputs.map((storage, i) => [storage, given[i] as Storage]));
        const results = interpret(roots, device, stored, (storage) => readStorage(bound.get(storage) ?? storage));
        for (const [i, storage] of storages.entries()) writeStorage(storage, results[i] as Float64Array);
      },
      hold() {},
      dispose() {},
    };
  },
};

function readStorage(storage: Storage): ArrayLike<number> {
  const buffer = asReference(storage.buffer);
  return buffer.values ?? decode(buffer.data.slice(0, storage.bytes), storage.dtype);
}

function writeStorage(storage: Storage, values: Float64Array): void {
  const buffer = asReference(storage.buffer);
  buffer.data.set(encode(values, storage.dtype));
  buffer.values = computeDType(storage.dtype) === "f32" ? values.slice(0, sizeOf([storage.elementCount])) : null;
}
