import { DeviceError } from "../../tensor/errors.js";
import { browserEnvironment, type CpuEnvironment, type WorkerData, type WorkerHandle } from "./environment.js";

/** Milliseconds that threads are watched, some more than the period (100) over which Linux shares out a container's time. */
const windowMs = 120;
/** Milliseconds after which workers that have not answered will not. */
const deadlineMs = 10_000;

/** Words of a probe's memory, each on a cache line of its own. */
const place = { count: 0, window: 16, arrived: 32, answered: 48, results: 64 } as const;
const resultStride = 16;
/** The share of time that counts as all of it. */
const whole = 1e6;

/**
 * The program of a thread that is watched: once all have come, each looks at the clock without a pause. Where it was away from it for longer
 * than a thread that keeps its core is, something else had the core. It answers the share of the time that it ran, or -1 where the clock is
 * too coarse to tell.
 */
const probeProgram = `
const words = new Int32Array(data.memory.buffer);
const count = words[${place.count}];
Atomics.add(words, ${place.arrived}, 1);
Atomics.notify(words, ${place.arrived});
for (let come; (come = Atomics.load(words, ${place.arrived})) < count; ) Atomics.wait(words, ${place.arrived}, come, 1000);
const start = performance.now();
let last = start;
let ran = 0;
let finest = Infinity;
for (const end = start + words[${place.window}]; last < end; ) {
  const now = performance.now();
  const gap = now - last;
  if (gap > 0) {
    finest = Math.min(finest, gap);
    if (gap < 0.4) ran += gap;
    last = now;
  }
}
words[${place.results} + ${resultStride} * data.thread] = finest < 0.2 ? (${whole} * ran) / (last - start) : -1;
Atomics.add(words, ${place.answered}, 1);
`;

/** What was found out about the workers of a page. */
export interface Probe {
  /** Threads that run at a time; 0 where workers do not start. */
  readonly threadCount: number;
  /** Why they do not start. */
  readonly reason?: string;
}

/**
 * Starts as many workers as are said to be worth having, and watches for how much of some time they run: a browser may report more cores than
 * there are, or than its container may use, and threads that wait for each other's turn take twice as long as fewer do. Where `isTold`, the
 * number is the caller's, and only whether workers start is asked. Resolves within some ten seconds.
 */
export async function probeThreads(spawn: NonNullable<CpuEnvironment["spawn"]>, threadCount: number, isTold = false): Promise<Probe> {
  const count = isTold ? 1 : threadCount;
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const words = new Int32Array(memory.buffer);
  words[place.count] = count;
  words[place.window] = isTold ? 0 : windowMs;
  const workers: WorkerHandle[] = [];
  let reason: string | null = null;
  const fail = (what: unknown): void => {
    reason ??= what instanceof Error ? what.message : String(what);
  };
  try {
    for (let thread = 0; thread < count; thread++) {
      const worker = spawn(probeProgram, { ...nothingToRun, memory, thread });
      void worker.failed?.then(fail);
      workers.push(worker);
    }
    const deadline = performance.now() + deadlineMs;
    while (Atomics.load(words, place.answered) < count && reason === null) {
      if (performance.now() > deadline) fail(`they did not start within ${deadlineMs / 1000} seconds`);
      await new Promise((resolve) => setTimeout(resolve, 4));
    }
  } catch (error) {
    fail(error);
  } finally {
    for (const worker of workers) worker.terminate();
  }
  if (reason !== null) return { threadCount: 0, reason };
  if (isTold) return { threadCount };
  const results = Array.from({ length: count }, (_, thread) => words[place.results + resultStride * thread] ?? -1);
  if (results.some((share) => share < 0)) return { threadCount };
  const running = results.reduce((sum, share) => sum + share, 0) / whole;
  return { threadCount: Math.max(1, Math.min(threadCount, Math.round(running))) };
}

/** What a worker is handed that computes nothing. */
const nothingToRun: Omit<WorkerData, "memory" | "thread"> = {
  driver: new Uint8Array(),
  scratch: 0,
  spins: 0,
  control: { library: 0, modules: 0, failure: 0, signal: 0, finished: 0 },
};

/** What was found out before, by the number of threads: a page asks once. */
const found = new Map<string, Promise<Probe>>();

/**
 * The browser's environment, tried out: as many threads as run at a time, and one where no worker starts, for instance because a
 * Content-Security-Policy forbids them. `threads` is the number that the caller wants. Rejects with DeviceError where the page may not
 * compile WebAssembly.
 */
export async function probedEnvironment(
  threads?: number,
  environment: CpuEnvironment = browserEnvironment(),
  known: Map<string, Promise<Probe>> = found,
): Promise<CpuEnvironment> {
  refuseWithoutWasm();
  const { spawn, mayBlock } = environment;
  const asked = threads ?? environment.threadCount;
  if (spawn === null || (asked === 1 && mayBlock)) return environment;
  const key = `${asked} ${threads !== undefined}`;
  const probe = known.get(key) ?? probeThreads(spawn, asked, threads !== undefined || asked === 1);
  known.set(key, probe);
  const { threadCount, reason } = await probe;
  // What is wrong now need not be when the next device opens.
  if (threadCount === 0) known.delete(key);
  if (threadCount > 0) return { ...environment, threadCount };
  return { ...environment, threadCount: 1, spawn: null, note: `no worker starts: ${reason}` };
}

/** An empty module, which is enough to ask for permission. */
const emptyModule = Uint8Array.of(0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00);

function refuseWithoutWasm(): void {
  try {
    new WebAssembly.Module(emptyModule);
  } catch (error) {
    throw new DeviceError(
      `cpu: WebAssembly cannot be compiled here (${(error as Error).message}). Allow 'wasm-unsafe-eval' in the page's Content-Security-Policy (script-src), or open the device "webgpu".`,
      "cpu",
    );
  }
}
