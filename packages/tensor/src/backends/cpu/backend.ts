import type { Backend, BackendBuffer, BackendCounters, BackendLimits, Executable, KernelTime } from "../../graph/backend.js";
import type { CompositeKernel, Plan } from "../../kernels/kernel.js";
import { controlBytes, stepFields } from "../../kernels/wasm/driver.js";
import { matmulScratchBytes } from "../../kernels/wasm/matmul.js";
import { DeviceError, showBytes } from "../../tensor/errors.js";
import { attentionNames, supportsAttention } from "./attention.js";
import { CpuBuffer } from "./buffer.js";
import { cachedAttentionName, supportsCachedAttention } from "./cached-attention.js";
import { supportsCrossEntropy } from "./cross-entropy.js";
import { browserEnvironment, type CpuEnvironment } from "./environment.js";
import { type AddressWord, argumentPlaces, CpuExecutable } from "./executable.js";
import { leastSummedRows } from "./few-rows.js";
import { Heap, maxHeapBytes } from "./heap.js";
import { KeptPanels } from "./kept-panels.js";
import { KernelLibrary } from "./library.js";
import { Queue } from "./queue.js";
import { roundUp } from "./round.js";
import { planSteps, type StepList, scratchBytesOf, stepBytes, type Word } from "./steps.js";
import { Threads } from "./threads.js";
import { Workspace } from "./workspace.js";

export interface CpuOptions {
  /** Where the backend runs; `nodeEnvironment()` in Node. Default: what a browser offers. */
  readonly environment?: CpuEnvironment;
  /** Threads that compute, the calling one included. Default: one a core. */
  readonly threadCount?: number;
  /** All memory that buffers and plans may take, at most 4 GiB. */
  readonly budgetBytes?: number;
  /** Plans whose estimated time is below this many nanoseconds run on the calling thread alone. */
  readonly soloNanoseconds?: number;
  /** Right operands are packed for good at the first run that could read them so, whatever that saves. For tests. */
  readonly panelsAtOnce?: boolean;
  /** Called after each kernel with its time. Kernels then run one by one, which costs some speed. */
  readonly onKernel?: (time: KernelTime) => void;
}

/** Estimated times beyond this say no more than this. */
const maxTileNanoseconds = 1e9;

/** Memory of a thread's own. Attention by blocks must do with what products need. */
const threadScratchBytes = matmulScratchBytes;

/** Composites that take their operands as they lie. */
const stridedComposites: ReadonlySet<string> = new Set([...attentionNames, cachedAttentionName]);

function disposed(): DeviceError {
  return new DeviceError("cpu: the device was disposed. Open it again with device().", "cpu");
}

function nanosecondsOf(lists: readonly StepList[]): number {
  return lists.reduce((all, { steps }) => steps.reduce((sum, { cost }) => sum + cost, all), 0);
}

/** The backend that computes in WebAssembly SIMD, on as many threads as there are cores. */
export function createCpuBackend(options: CpuOptions = {}): Backend {
  return new CpuBackend(options);
}

class CpuBackend implements Backend {
  readonly name = "cpu";
  readonly leastSummedRows: number = leastSummedRows;
  readonly description: string;
  readonly limits: BackendLimits;
  readonly counters: BackendCounters = {
    buffersCreated: 0,
    pipelinesCreated: 0,
    plansPrepared: 0,
    kernelsRun: 0,
    bytesInUse: 0,
    peakBytes: 0,
  };
  readonly #onKernel: ((time: KernelTime) => void) | undefined;
  readonly #heap: Heap;
  readonly #library: KernelLibrary;
  readonly #workspace: Workspace;
  readonly #panels: KeptPanels;
  readonly #threads: Threads;
  readonly #queue: Queue;
  /** What `onKernel` has thrown first; the next read or `finish` throws it. */
  #listenerError: { readonly error: unknown } | null = null;
  #isDisposed = false;

  constructor(options: CpuOptions) {
    const environment = options.environment ?? browserEnvironment();
    const { spawn, mayBlock } = environment;
    const count = spawn ? (options.threadCount ?? environment.threadCount) : 1;
    this.#onKernel = options.onKernel;
    const isShared = count > 1 || (spawn !== null && !mayBlock);
    const budgetBytes = Math.min(options.budgetBytes ?? maxHeapBytes, maxHeapBytes);
    this.limits = { maxBufferBytes: budgetBytes, budgetBytes };
    this.#heap = new Heap(isShared, controlBytes(count), budgetBytes, this.counters);
    this.#library = new KernelLibrary(this.#heap, { isShared, hasRelaxedSimd: environment.hasRelaxedSimd }, this.counters);
    this.#threads = new Threads({
      environment,
      count,
      heap: this.#heap,
      table: this.#library.table,
      scratchBytes: threadScratchBytes,
      soloNanoseconds: options.soloNanoseconds,
    });
    this.#queue = new Queue(this.#threads);
    this.#heap.reclaim = () => this.#queue.drain();
    this.#heap.isDone = (ticket) => this.#queue.isDone(ticket);
    const { runsInline } = this.#threads;
    this.#workspace = new Workspace(this.#heap, {
      releasesAtOnce: runsInline,
      release: (address) => (runsInline ? this.#heap.free(address) : this.#freeInOrder(address)),
      // What waits finds the other block when it begins; a plan whose kernels are timed one by one may be halfway.
      beforeExchange: () => (options.onKernel ? this.#queue.drain() : this.#threads.settle()),
    });
    this.#panels = new KeptPanels({
      budgetBytes,
      atOnce: options.panelsAtOnce === true,
      place: (plan, inPanels) => this.#place(plan, planSteps(plan, this.#library, inPanels)),
      launch: (executable, buffers) => this.#launch(executable, buffers),
    });
    this.description = `WebAssembly SIMD, ${count} thread${count === 1 ? "" : "s"}, up to ${showBytes(budgetBytes)}${environment.note ? `; ${environment.note}` : ""}`;
  }

  supports(kernel: CompositeKernel): boolean {
    return (
      supportsAttention(kernel, threadScratchBytes) || supportsCachedAttention(kernel, threadScratchBytes) || supportsCrossEntropy(kernel)
    );
  }

  get stridedComposites(): ReadonlySet<string> {
    return stridedComposites;
  }

  allocate(bytes: number): BackendBuffer {
    this.#checkAlive();
    // A buffer is read and written by what is enqueued, and by nothing else.
    return new CpuBuffer(bytes, this.#heap.allocateInOrder(bytes));
  }

  free(buffer: BackendBuffer): void {
    if (this.#isDisposed) return;
    this.#panels.forget(buffer as CpuBuffer);
    this.#freeInOrder((buffer as CpuBuffer).address);
  }

  /** What is enqueued may still use it. */
  #freeInOrder(address: number): void {
    this.#heap.free(address, this.#queue.ticket);
  }

  write(buffer: BackendBuffer, data: Uint8Array, byteOffset = 0): void {
    this.#checkAlive();
    this.#checkRange("write", buffer, data.byteLength, byteOffset);
    this.#panels.restore(buffer as CpuBuffer);
    this.#panels.forget(buffer as CpuBuffer);
    const { address } = buffer as CpuBuffer;
    const bytes = this.#queue.isEmpty ? data : data.slice();
    this.#queue.do(() => this.#heap.bytes.set(bytes, address + byteOffset));
  }

  place(buffer: BackendBuffer, byteLength: number, byteOffset: number): Uint8Array | null {
    this.#checkAlive();
    this.#checkRange("write", buffer, byteLength, byteOffset);
    // Memory that is not shared moves when it grows, and what is enqueued may still use a block that was given back.
    const { bytes } = this.#heap;
    if (!this.#queue.isEmpty || bytes.buffer instanceof ArrayBuffer) return null;
    this.#panels.restore(buffer as CpuBuffer);
    this.#panels.forget(buffer as CpuBuffer);
    const start = (buffer as CpuBuffer).address + byteOffset;
    return bytes.subarray(start, start + byteLength);
  }

  async read(buffer: BackendBuffer, byteLength: number, byteOffset = 0): Promise<Uint8Array> {
    this.#checkAlive();
    this.#checkRange("read", buffer, byteLength, byteOffset);
    this.#panels.restore(buffer as CpuBuffer);
    const start = (buffer as CpuBuffer).address + byteOffset;
    return this.#queue.after(() => {
      this.#throwListenerError();
      return this.#heap.bytes.slice(start, start + byteLength);
    });
  }

  get reusableBytes(): number {
    return this.#workspace.reusableBytes;
  }

  workspaceBytes(plan: Plan): number {
    return stepBytes(plan, this.#library);
  }

  prepare(plan: Plan): Executable {
    this.#checkAlive();
    const lists = planSteps(plan, this.#library);
    const executable = this.#place(plan, lists);
    this.counters.plansPrepared++;
    executable.layouts = this.#panels.layoutsOf(plan, nanosecondsOf(lists), plan.arenaBytes + scratchBytesOf(lists));
    return executable;
  }

  /** Writes a plan's steps and their arguments into memory of its own. */
  #place(plan: Plan, lists: readonly StepList[]): CpuExecutable {
    this.#library.publish();
    const steps = lists.flatMap((list) => list.steps);
    const { wordCount, tables, blocks } = argumentPlaces(steps);
    const arenaBytes = roundUp(plan.arenaBytes, 256);
    const scratchAt = roundUp(scratchBytesOf(lists), 256);
    const address = this.#heap.allocate(wordCount * 4);
    const tenant = {};
    try {
      this.#workspace.add(tenant, arenaBytes + scratchAt);
    } catch (error) {
      this.#heap.free(address);
      throw error;
    }
    const first = address / 4;
    const { words } = this.#heap;
    const patches = Array.from({ length: plan.bindingCount }, (): AddressWord[] => []);
    const workspaceWords: AddressWord[] = [];
    const inWorkspace = (at: number, offset: number): number => {
      workspaceWords.push({ at, offset });
      return 0;
    };
    for (const table of tables.values()) words.set(table.values, first + table.at);
    const resolve = (word: Word, at: number): number => {
      if (typeof word === "number") return word;
      if (word.kind === "scratch") return inWorkspace(at, arenaBytes + word.offset);
      if (word.kind === "constants") return (first + (tables.get(word.values.join())?.at ?? 0)) * 4;
      if (word.kind === "words") return (first + (blocks.get(word.words) ?? 0)) * 4;
      const slot = plan.slots[word.slot];
      const offset = word.byteOffset ?? 0;
      if (slot?.kind === "arena") return inWorkspace(at, slot.offset + offset);
      if (slot) patches[slot.binding]?.push({ at, offset });
      return 0;
    };
    for (const [i, step] of steps.entries()) {
      const tileNanoseconds = Math.min(Math.ceil(step.cost / Math.max(step.tiles, 1)), maxTileNanoseconds);
      words.set([step.entry, step.tiles, (first + (blocks.get(step.words) ?? 0)) * 4, tileNanoseconds], first + i * (stepFields.bytes / 4));
    }
    for (const [block, at] of blocks) {
      for (const [j, word] of block.entries()) words[first + at + j] = resolve(word, first + at + j);
    }
    const stepAddress = (index: number): number => first * 4 + index * stepFields.bytes;
    let count = 0;
    const kernelEnds = lists.map((list) => stepAddress((count += list.steps.length)));
    return new CpuExecutable(
      plan,
      address,
      stepAddress(0),
      stepAddress(steps.length),
      kernelEnds,
      patches,
      workspaceWords,
      nanosecondsOf(lists),
      (executable) => {
        if (this.#isDisposed) return;
        this.#freeInOrder(executable.address);
        this.#queue.do(() => this.#workspace.remove(tenant));
      },
    );
  }

  run(executable: Executable, bindings: readonly BackendBuffer[]): void {
    this.#checkAlive();
    const prepared = executable as CpuExecutable;
    if (prepared.isDisposed) throw new Error("cpu: this executable was disposed. Prepare the plan again.");
    if (bindings.length !== prepared.plan.bindingCount) {
      throw new Error(
        `cpu: the plan has ${prepared.plan.bindingCount} bindings, but ${bindings.length} buffers were given. Pass one buffer for each.`,
      );
    }
    this.counters.kernelsRun += prepared.kernelEnds.length;
    const buffers = bindings as readonly CpuBuffer[];
    const arranged = this.#panels.arrange(prepared, buffers);
    this.#launch(arranged, buffers, this.#onKernel);
  }

  /** Runs all steps, or enqueues them; tells `onKernel` of each kernel where that is given. */
  #launch(executable: CpuExecutable, buffers: readonly CpuBuffer[], onKernel?: (time: KernelTime) => void): void {
    if (onKernel && this.#threads.runsInline) {
      for (const i of executable.kernelEnds.keys()) this.#queue.doInTurn(() => this.#timeKernel(i, executable, buffers, onKernel));
      return;
    }
    const { firstStep, endStep, nanoseconds } = executable;
    this.#queue.run({
      begin: () => {
        this.#bind(executable, buffers);
        this.#threads.start(firstStep, endStep, nanoseconds);
      },
      runAway: () => {
        this.#bind(executable, buffers);
        return this.#threads.runAway(firstStep, endStep);
      },
    });
  }

  #bind(executable: CpuExecutable, buffers: readonly CpuBuffer[]): void {
    const { words } = this.#heap;
    const { address: base, generation } = this.#workspace;
    if (executable.generation !== generation) {
      for (const { at, offset } of executable.workspaceWords) words[at] = base + offset;
      executable.generation = generation;
    }
    for (let i = 0; i < buffers.length; i++) {
      const address = buffers[i]?.address ?? 0;
      for (const { at, offset } of executable.patches[i] ?? []) words[at] = address + offset;
    }
  }

  #timeKernel(i: number, executable: CpuExecutable, buffers: readonly CpuBuffer[], onKernel: (time: KernelTime) => void): void {
    const { kernelEnds, firstStep, plan, statistics, nanoseconds } = executable;
    // Something else may have run since the kernel before.
    this.#bind(executable, buffers);
    const startMs = performance.now();
    this.#threads.start(kernelEnds[i - 1] ?? firstStep, kernelEnds[i] ?? firstStep, nanoseconds);
    this.#threads.settle();
    const ms = performance.now() - startMs;
    const work = statistics.kernels[i];
    try {
      onKernel({ name: plan.names[i] ?? `kernel ${i}`, startMs, ms, ...(work && { work }) });
    } catch (error) {
      this.#listenerError ??= { error };
    }
  }

  #throwListenerError(): void {
    const thrown = this.#listenerError;
    this.#listenerError = null;
    if (thrown) throw thrown.error;
  }

  async finish(): Promise<void> {
    this.#checkAlive();
    await this.#queue.after(() => this.#throwListenerError());
  }

  async ready(): Promise<void> {
    await this.finish();
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#queue.fail(disposed());
    this.#threads.dispose();
    this.counters.bytesInUse = 0;
  }

  #checkAlive(): void {
    if (this.#isDisposed) throw disposed();
  }

  #checkRange(what: string, buffer: BackendBuffer, byteLength: number, byteOffset: number): void {
    if (byteOffset < 0 || byteOffset + byteLength > buffer.bytes) {
      throw new Error(`cpu: ${what} of ${byteLength} bytes at ${byteOffset} leaves the buffer of ${buffer.bytes} bytes.`);
    }
  }
}
