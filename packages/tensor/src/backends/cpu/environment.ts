import { knowsRelaxedSimd } from "../../kernels/wasm/assembler.js";
import { DeviceError, showValue } from "../../tensor/errors.js";

/** What a worker is handed when it starts. */
export interface WorkerData {
  readonly memory: WebAssembly.Memory;
  readonly driver: Uint8Array;
  /** Its number: which part of a step's tiles is its own. */
  readonly thread: number;
  /** Scratch memory of the thread's own. */
  readonly scratch: number;
  readonly spins: number;
  /** Addresses in the control block. */
  readonly control: Readonly<Record<"library" | "modules" | "failure" | "signal" | "finished", number>>;
}

export interface WorkerHandle {
  terminate(): void;
  /** Resolves, with the reason, when the worker does not start or ends by an error that it could not tell of itself. */
  readonly failed?: Promise<string>;
}

/** What the cpu backend asks of the place where it runs. */
export interface CpuEnvironment {
  /** How many threads are worth having. */
  readonly threadCount: number;
  /** False in a browser's main thread, where waiting is forbidden: all kernels then run on workers. */
  readonly mayBlock: boolean;
  /** Whether kernels may use the relaxed vector instructions. */
  readonly hasRelaxedSimd: boolean;
  /** Starts a worker that evaluates `program` with a variable `data` in scope; null where workers cannot share memory. */
  readonly spawn: ((program: string, data: WorkerData) => WorkerHandle) | null;
  /** Something about the place that the device's description tells. */
  readonly note?: string;
}

/** Threads beyond which a number of them is a mistake. */
const mostThreads = 1024;

/** Throws DeviceError for what is not a number of threads; `name` is where it was given. */
export function checkThreadCount(count: unknown, name: string): asserts count is number {
  if (typeof count === "number" && Number.isInteger(count) && count >= 1 && count <= mostThreads) return;
  throw new DeviceError(
    `cpu: ${name} is ${showValue(count)}, not a whole number from 1 to ${mostThreads}. Correct it or leave it out.`,
    "cpu",
  );
}

/** The program of a worker, as text because it must start from a bundle, from a page and from Node alike. */
export const workerProgram = `
const { memory, driver, thread, scratch, spins, control } = data;
const table = new WebAssembly.Table({ element: "anyfunc", initial: 64 });
let tail = control.modules;
const wholeMemory = () => {
  memory.grow(0); // another thread may have grown it; this makes .buffer see that
  return new Int32Array(memory.buffer);
};
const refresh = () => {
  let words = wholeMemory();
  const version = Atomics.load(words, control.library / 4);
  for (;;) {
    const next = Atomics.load(words, (tail >>> 0) / 4) >>> 0;
    if (next === 0) return version;
    words = wholeMemory(); // the memory may have grown for this very module
    const bytes = new Uint8Array(memory.buffer, next + 8, words[next / 4 + 1]).slice();
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory, table } });
    for (const [name, value] of Object.entries(exports)) {
      const entry = Number(name);
      if (entry >= table.length) table.grow(Math.max(entry + 1 - table.length, table.length));
      table.set(entry, value);
    }
    tail = next;
  }
};
try {
  const env = { memory, table, refresh, isLate: () => 0 };
  new WebAssembly.Instance(new WebAssembly.Module(driver), { env }).exports.drive(-1, thread, scratch, spins, 0, 0);
} catch (error) {
  // Nobody will finish what this thread has taken. Its own memory holds what it says; whoever waits for the job is woken to read it.
  const words = wholeMemory();
  const text = new TextEncoder().encode(String(error)).subarray(0, 1000);
  words[scratch / 4] = text.length;
  new Uint8Array(memory.buffer).set(text, scratch + 4);
  Atomics.store(words, control.failure / 4, scratch);
  for (const at of [control.signal, control.finished]) {
    Atomics.add(words, at / 4, 1);
    Atomics.notify(words, at / 4);
  }
}
`;

/** The environment of a browser page or worker; elsewhere one thread. */
export function browserEnvironment(): CpuEnvironment {
  const scope = globalThis as { crossOriginIsolated?: boolean; document?: unknown; navigator?: { hardwareConcurrency?: number } };
  const canShare = scope.crossOriginIsolated === true && typeof Worker === "function" && typeof SharedArrayBuffer === "function";
  return {
    threadCount: canShare ? (scope.navigator?.hardwareConcurrency ?? 1) : 1,
    mayBlock: scope.document === undefined,
    hasRelaxedSimd: knowsRelaxedSimd(),
    spawn: canShare ? spawnWorker : null,
  };
}

function spawnWorker(program: string, data: WorkerData): WorkerHandle {
  const url = URL.createObjectURL(new Blob([`onmessage = ({ data }) => {${program}};`], { type: "text/javascript" }));
  const worker = new Worker(url);
  const failed = new Promise<string>((resolve) => {
    worker.onerror = (event) => resolve(event.message || "the page's Content-Security-Policy may forbid it (worker-src blob: allows it)");
  });
  worker.postMessage(data);
  return {
    failed,
    terminate: () => {
      worker.terminate();
      URL.revokeObjectURL(url);
    },
  };
}
