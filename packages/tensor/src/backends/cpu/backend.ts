import type { CompositeKernel, Plan } from "../../kernels/kernel.js";
import { controlBytes, stepFields } from "../../kernels/wasm/driver.js";
import { matmulScratchBytes } from "../../kernels/wasm/matmul.js";
import { DeviceError, showBytes } from "../../tensor/errors.js";
import { largest } from "../../tensor/extremes.js";
import type { Backend, BackendBuffer, BackendCounters, BackendLimits, Executable, KernelTime } from "../backend.js";
import { attentionNames, supportsAttention } from "./attention.js";
import { CpuBuffer } from "./buffer.js";
import { supportsCrossEntropy } from "./cross-entropy.js";
import { browserEnvironment, type CpuEnvironment } from "./environment.js";
import { type AddressWord, argumentPlaces, CpuExecutable } from "./executable.js";
import { leastSummedRows } from "./few-rows.js";
import { Heap, maxHeapBytes } from "./heap.js";
import { KeptPanels } from "./kept-panels.js";
import { KernelLibrary } from "./library.js";
import { roundUp } from "./round.js";
import { planSteps, type StepList, type Word } from "./steps.js";
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

/** Memory of a thread's own. Attention by blocks must do with what products need. */
const threadScratchBytes = matmulScratchBytes;

/** Kernels run one after another, so that what the largest needs serves all. */
function scratchBytesOf(lists: readonly StepList[]): number {
  return largest(
    lists.map(({ scratchBytes }) => scratchBytes),
    0,
  );
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
  #isDisposed = false;
  /** Where waiting is forbidden, what has been asked for and is not done; null when all is done. */
  #queue: Promise<void> | null = null;

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
    this.#workspace = new Workspace(this.#heap, (address) => this.#inOrder(() => this.#heap.free(address)), this.#threads.runsInline);
    this.#panels = new KeptPanels({
      budgetBytes,
      atOnce: options.panelsAtOnce === true,
      place: (plan, inPanels) => this.#place(plan, planSteps(plan, this.#library, inPanels)),
      launch: (executable, buffers) => this.#launch(executable, buffers),
    });
    this.description = `WebAssembly SIMD, ${count} thread${count === 1 ? "" : "s"}, up to ${showBytes(budgetBytes)}${environment.note ? `; ${environment.note}` : ""}`;
  }

  supports(kernel: CompositeKernel): boolean {
    return supportsAttention(kernel, threadScratchBytes) || supportsCrossEntropy(kernel);
  }

  get stridedComposites(): ReadonlySet<string> {
    return attentionNames;
  }

  allocate(bytes: number): BackendBuffer {
    this.#checkAlive();
    return new CpuBuffer(bytes, this.#heap.allocate(bytes));
  }

  free(buffer: BackendBuffer): void {
    if (this.#isDisposed) return;
    this.#panels.forget(buffer as CpuBuffer);
    const { address } = buffer as CpuBuffer;
    this.#inOrder(() => this.#heap.free(address));
  }

  write(buffer: BackendBuffer, data: Uint8Array, byteOffset = 0): void {
    this.#checkAlive();
    this.#checkRange("write", buffer, data.byteLength, byteOffset);
    this.#panels.restore(buffer as CpuBuffer);
    this.#panels.forget(buffer as CpuBuffer);
    const { address } = buffer as CpuBuffer;
    if (!this.#queue) {
      this.#heap.bytes.set(data, address + byteOffset);
      return;
    }
    const copy = data.slice();
    this.#inOrder(() => this.#heap.bytes.set(copy, address + byteOffset));
  }

  async read(buffer: BackendBuffer, byteLength: number, byteOffset = 0): Promise<Uint8Array> {
    this.#checkAlive();
    this.#checkRange("read", buffer, byteLength, byteOffset);
    this.#panels.restore(buffer as CpuBuffer);
    await this.finish();
    const start = (buffer as CpuBuffer).address + byteOffset;
    return this.#heap.bytes.slice(start, start + byteLength);
  }

  get reusableBytes(): number {
    return this.#workspace.reusableBytes;
  }

  workspaceBytes(plan: Plan): number {
    const lists = planSteps(plan, this.#library);
    return scratchBytesOf(lists) + argumentPlaces(lists.flatMap((list) => list.steps)).wordCount * 4;
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
      words.set([step.entry, step.tiles, (first + (blocks.get(step.words) ?? 0)) * 4], first + i * (stepFields.bytes / 4));
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
        this.#inOrder(() => {
          this.#heap.free(executable.address);
          this.#workspace.remove(tenant);
        });
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
    this.counters.kernelsRun += prepared.plan.kernels.length;
    const buffers = bindings as readonly CpuBuffer[];
    const arranged = this.#panels.arrange(prepared, buffers);
    this.#launch(arranged, buffers, this.#onKernel);
  }

  /** Runs all steps, or enqueues them; tells `onKernel` of each kernel where that is given and nothing is enqueued. */
  #launch(executable: CpuExecutable, buffers: readonly CpuBuffer[], onKernel?: (time: KernelTime) => void): void {
    if (this.#threads.runsInline) {
      this.#bind(executable, buffers);
      this.#runInline(executable, onKernel);
      return;
    }
    this.#enqueue(async () => {
      this.#bind(executable, buffers);
      await this.#threads.runAway(executable.firstStep, executable.endStep);
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

  #runInline(executable: CpuExecutable, onKernel: ((time: KernelTime) => void) | undefined): void {
    if (!onKernel) {
      this.#threads.run(executable.firstStep, executable.endStep, executable.nanoseconds);
      return;
    }
    const { kernels } = executable.statistics;
    let first = executable.firstStep;
    for (const [i, end] of executable.kernelEnds.entries()) {
      const startMs = performance.now();
      this.#threads.run(first, end, executable.nanoseconds);
      this.#threads.settle();
      const ms = performance.now() - startMs;
      const work = kernels[i];
      onKernel({ name: executable.plan.names[i] ?? `kernel ${i}`, startMs, ms, ...(work && { work }) });
      first = end;
    }
  }

  async finish(): Promise<void> {
    this.#checkAlive();
    this.#threads.settle();
    while (this.#queue) await this.#queue;
  }

  dispose(): void {
    this.#isDisposed = true;
    this.#threads.dispose();
    this.counters.bytesInUse = 0;
  }

  /** Does something now, or after what is already enqueued. */
  #inOrder(action: () => void): void {
    if (this.#queue) this.#enqueue(async () => action());
    else action();
  }

  #enqueue(task: () => Promise<void>): void {
    const before = this.#queue ?? Promise.resolve();
    const tail: Promise<void> = before.then(task).finally(() => {
      if (this.#queue === tail) this.#queue = null;
    });
    this.#queue = tail;
  }

  #checkAlive(): void {
    if (this.#isDisposed) throw new DeviceError("cpu: the device was disposed. Open it again with device().", "cpu");
  }

  #checkRange(what: string, buffer: BackendBuffer, byteLength: number, byteOffset: number): void {
    if (byteOffset < 0 || byteOffset + byteLength > buffer.bytes) {
      throw new Error(`cpu: ${what} of ${byteLength} bytes at ${byteOffset} leaves the buffer of ${buffer.bytes} bytes.`);
    }
  }
}
