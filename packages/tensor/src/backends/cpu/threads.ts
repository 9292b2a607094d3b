import { isTurnDue } from "../../graph/event-loop.js";
import { control, type DriverExports, lineBytes, printDriver, stepFields } from "../../kernels/wasm/driver.js";
import { DeviceLostError } from "../../tensor/errors.js";
import { type CpuEnvironment, type WorkerHandle, workerProgram } from "./environment.js";
import type { Heap } from "./heap.js";
import { roundUp } from "./round.js";

/**
 * Looks at the signal before a thread goes to sleep; a look takes one or two nanoseconds. What a program does between two jobs is mostly
 * shorter than all of them, and waking a thread takes longer than many a job.
 */
const spins = 200000;
/** Estimated nanoseconds below which waking another thread costs more than it brings. */
const defaultSoloNanoseconds = 20000;
/** Estimated nanoseconds for each thread from which on a job waits for those that were woken for it. */
const rollCallNanoseconds = 2.5e6;
/** Milliseconds after which a thread that was woken is late. One that gets a core comes within half of it. */
const lateMs = 0.15;

export interface ThreadsOptions {
  readonly environment: CpuEnvironment;
  /** Threads that compute at a time, the calling one included where it may wait. */
  readonly count: number;
  readonly heap: Heap;
  /** Compiled kernel functions by number, as the calling thread knows them. */
  readonly table: WebAssembly.Table;
  /** Memory of each thread's own. */
  readonly scratchBytes: number;
  /** Jobs whose estimated time is below this many nanoseconds run on the calling thread alone. */
  readonly soloNanoseconds?: number | undefined;
}

/** A job that this thread takes part in: of all threads, by its number, or of this one alone, with the step and the tile that come next. */
type Job =
  | { readonly kind: "shared"; readonly number: number }
  | { readonly kind: "solo"; step: number; tile: number; readonly end: number };

/** Jobs are numbered as the driver counts them. */
function nextJob(job: number): number {
  return (job + 1) & 0x7fffffff;
}

/**
 * The threads that run steps: the calling one, where it may wait, and workers, which start with the first job that is for them.
 *
 * Linux may put a thread that is woken behind the one that wakes it, on the same core, though another core is idle: it then comes several
 * milliseconds late. JavaScript cannot say where its threads run, but one more thread, which last ran on another core, is put there. So one
 * is kept in reserve: when a thread is late, the spare is woken in its place, and the late one is the spare from then on.
 */
export class Threads {
  /** Whether the calling thread takes part in jobs, by `start` and `advance`; else they run on workers alone, by `runAway`. */
  readonly runsInline: boolean;
  readonly #options: ThreadsOptions;
  readonly #driverBytes: Uint8Array<ArrayBuffer>;
  readonly #driver: DriverExports;
  readonly #scratch: number;
  readonly #workers: WorkerHandle[] = [];
  #jobs = 0;
  #isDisposed = false;
  /** What `start` has begun and `advance` goes on with. */
  #job: Job | null = null;
  /** Whether others may still be at the last tiles of the last job. */
  #isUnsettled = false;
  /** Memory of the spare thread, and whether it was started. */
  #spareScratch = 0;
  #hasSpare = false;

  constructor(options: ThreadsOptions) {
    const { environment, count, heap, table, scratchBytes } = options;
    this.#options = options;
    this.runsInline = environment.mayBlock || environment.spawn === null;
    this.#driverBytes = printDriver(heap.isShared, count);
    const refresh = (): number => heap.words[control.library / 4] ?? 0;
    const env = { memory: heap.memory, table, refresh, isLate: () => Number(isTurnDue()) };
    // The module's exports are those that printDriver writes.
    this.#driver = new WebAssembly.Instance(new WebAssembly.Module(this.#driverBytes), { env }).exports as unknown as DriverExports;
    this.#scratch = heap.allocate(scratchBytes);
    heap.beforeAccess = () => this.#settleLast();
  }

  /**
   * Begins a job: steps, from the address of the first to that after the last. `advance` does this thread's part of it, between whose slices
   * others go on. Nothing else may begin before it is done. Throws DeviceError when a thread has failed.
   */
  start(first: number, end: number, nanoseconds: number): void {
    this.settle();
    if (first === end) return;
    const { count, heap, soloNanoseconds = defaultSoloNanoseconds } = this.#options;
    if (count === 1 || nanoseconds < soloNanoseconds) {
      this.#job = { kind: "solo", step: first, tile: 0, end };
      return;
    }
    this.#startWorkers();
    this.#jobs = nextJob(this.#jobs);
    this.#driver.start(first, end, 0);
    this.#job = { kind: "shared", number: this.#jobs };
    // A single tile wakes nobody.
    if (nanoseconds >= rollCallNanoseconds * count && (heap.words[(first + stepFields.tiles) / 4] ?? 0) > 1) this.#callRoll();
  }

  /**
   * Takes part in the job until the event loop is due, or to its end where `isSliced` is false. Returns true when this thread finds nothing
   * more to do: others may still be at their last tiles, while JavaScript prepares what comes next. Nothing else runs, and no memory is seen,
   * before `settle`.
   */
  advance(isSliced: boolean): boolean {
    const job = this.#job;
    if (!job) return true;
    if (job.kind === "solo") {
      job.step = this.#driver.solo(job.step, job.tile, job.end, this.#scratch, Number(isSliced));
      if (job.step !== job.end) {
        job.tile = this.#options.heap.words[control.resume / 4] ?? 0;
        return false;
      }
    } else {
      if (this.#driver.drive(job.number, 0, this.#scratch, spins, 1, Number(isSliced))) return false;
      this.#isUnsettled = true;
    }
    this.#job = null;
    return true;
  }

  /** Takes part in the job and waits for the others until the event loop is due. Returns whether nothing runs any more. Throws DeviceError when a thread fails. */
  settleSlice(): boolean {
    if (!this.advance(true)) return false;
    if (!this.#isUnsettled) return true;
    if (this.#driver.drive(this.#jobs, 0, this.#scratch, spins, 0, 1)) return false;
    this.#isUnsettled = false;
    this.#checkAlive();
    return true;
  }

  /** Returns when what was begun is done. Throws DeviceError when a thread fails. */
  settle(): void {
    this.advance(false);
    this.#settleLast();
  }

  #settleLast(): void {
    if (!this.#isUnsettled) return;
    this.#isUnsettled = false;
    this.#driver.drive(this.#jobs, 0, this.#scratch, spins, 0, 0);
    this.#checkAlive();
  }

  /** The same on workers alone; resolves when they are done. */
  async runAway(first: number, end: number): Promise<void> {
    if (first === end) return;
    this.#startWorkers();
    this.#jobs = nextJob(this.#jobs);
    this.#driver.start(first, end, 1);
    const at = control.finished / 4;
    Atomics.store(this.#options.heap.words, control.listening / 4, 1);
    for (;;) {
      const { words } = this.#options.heap;
      const finished = Atomics.load(words, at);
      this.#checkAlive();
      if (finished === this.#jobs || this.#isDisposed) return;
      const { waitAsync } = Atomics as { waitAsync?: (words: Int32Array, at: number, value: number) => { value: unknown } };
      if (waitAsync) await waitAsync(words, at, finished).value;
      else await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }

  #startWorkers(): void {
    this.#checkAlive();
    if (this.#workers.length > 0) return;
    const { count, heap } = this.#options;
    const bytes = roundUp(this.#options.scratchBytes, lineBytes);
    const first = this.runsInline ? 1 : 0;
    // Workers and, where one of them may be late, the spare.
    const scratch = heap.allocate(bytes * count);
    for (let thread = first; thread < count; thread++) this.#spawn(thread, scratch + bytes * (thread - first));
    if (this.runsInline) this.#spareScratch = scratch + bytes * (count - first);
  }

  #spawn(thread: number, scratch: number): void {
    const { environment, heap } = this.#options;
    const data = { memory: heap.memory, driver: this.#driverBytes, thread, scratch, spins, control };
    const worker = environment.spawn?.(workerProgram, data);
    if (!worker) return;
    this.#workers.push(worker);
    void worker.failed?.then((reason) => this.#fail(scratch, reason));
  }

  /** Says of a worker that ended without a word what it would have said itself, and wakes whoever waits. */
  #fail(scratch: number, reason: string): void {
    const { words, bytes } = this.#options.heap;
    const text = new TextEncoder().encode(reason).subarray(0, 1000);
    words[scratch / 4] = text.length;
    bytes.set(text, scratch + 4);
    Atomics.store(words, control.failure / 4, scratch);
    for (const at of [control.signal, control.finished]) {
      Atomics.add(words, at / 4, 1);
      Atomics.notify(words, at / 4);
    }
  }

  #checkAlive(): void {
    const { words, bytes } = this.#options.heap;
    const at = Atomics.load(words, control.failure / 4);
    if (at === 0) return;
    // A copy, because text is not decoded from memory that is shared.
    const text = new TextDecoder().decode(bytes.slice(at + 4, at + 4 + (words[at / 4] ?? 0)));
    throw new DeviceLostError(
      `cpu: a thread failed: ${text}.`,
      "Open the device again with device(), with fewer threads if memory is short.",
      "cpu",
    );
  }

  /** Waits a moment for the threads that were woken, and calls the spare in the place of one that does not come. */
  #callRoll(): void {
    const { count, heap } = this.#options;
    const { words } = heap;
    const deadline = performance.now() + lateMs;
    while (Atomics.load(words, control.sleepers / 4) > 0) {
      if (performance.now() < deadline) continue;
      // Else nobody has gone into the reserve since the last call.
      if (Atomics.load(words, control.surplus / 4) === 0) {
        Atomics.store(words, control.surplus / 4, 1);
        if (this.#hasSpare) {
          Atomics.add(words, control.called / 4, 1);
          Atomics.notify(words, control.called / 4, 1);
        } else {
          this.#hasSpare = true;
          this.#spawn(count - 1, this.#spareScratch);
        }
      }
      return;
    }
  }

  dispose(): void {
    this.#isDisposed = true;
    // Who waits for workers that are gone would wait for ever, and keep the memory.
    if (!this.runsInline) Atomics.notify(this.#options.heap.words, control.finished / 4);
    for (const worker of this.#workers) worker.terminate();
    this.#workers.length = 0;
    this.#job = null;
    this.#isUnsettled = false;
  }
}
