import { type DType, dtypeBytes } from "../tensor/dtype.js";
import { DeviceError } from "../tensor/errors.js";
import type { BackendBuffer } from "./backend.js";
import type { Device } from "./device.js";
import type { History } from "./history.js";
import type { Holding } from "./memory.js";

let nextId = 0;
const leastHistories = 256;

/** What a storage holds between two assignments. Expressions refer to it, so that what they need is kept as long as there are any. */
export class Version {
  /** The contents, once the storage holds other ones; null where they were not kept. */
  past: Storage | null = null;
}

/**
 * Device memory of one tensor. Graphs refer to a storage and a version of it: `assign` makes the next version, and the contents before
 * stay until the version after it where an expression needs them.
 * Without a buffer yet it is a placeholder: an argument of a compiled function, or a result still to be computed.
 */
export class Storage {
  /** A number of its own. */
  readonly id: number = nextId++;
  #version = new Version();
  /** The version before, where its contents were kept. */
  #former: WeakRef<Version> | null = null;
  /** Former contents that reads under way still need. */
  readonly #waiting: Storage[] = [];
  /** Expressions of values that were computed from the present contents and read. */
  #histories = new Set<WeakRef<History>>();
  /** How many of them are kept before it is looked which are gone. */
  #historyLimit = leastHistories;
  #holding: Holding | null = null;
  /** The contents while they are evicted. */
  #evicted: Uint8Array | null = null;
  #isDisposed = false;
  /** Whether it holds a computed result, which nobody replaces, and whether somebody has read that. */
  #isResult: boolean;
  #wasRead = false;
  /** What is under way that needs the contents to stay. */
  #pins = 0;
  /** Counts what may use or change the contents. */
  #uses = 0;

  constructor(
    readonly device: Device,
    readonly dtype: DType,
    readonly elementCount: number,
    { isResult = false }: { readonly isResult?: boolean } = {},
  ) {
    this.#isResult = isResult;
  }

  get bytes(): number {
    return this.elementCount * dtypeBytes[this.dtype];
  }

  get isDisposed(): boolean {
    return this.#isDisposed;
  }

  /** What it holds now. */
  get version(): Version {
    return this.#version;
  }

  /** Whether the contents of the version before were kept. */
  get hasPast(): boolean {
    return this.#former?.deref()?.past != null;
  }

  /** The storage that holds the contents of a version; null when they are gone. */
  at(version: Version): Storage | null {
    return version === this.#version ? this : version.past;
  }

  /** Expressions over the present contents are let go once these are overwritten. */
  addHistory(history: WeakRef<History>): void {
    this.#histories.add(history);
    if (this.#histories.size < this.#historyLimit) return;
    this.#histories = new Set([...this.#histories].filter((reference) => reference.deref()?.reason === null));
    this.#historyLimit = Math.max(leastHistories, 2 * this.#histories.size);
  }

  /** The contents were replaced where they lay. */
  overwritten(): void {
    this.forgetPast();
    this.#version = new Version();
    if (this.#histories.size === 0) return;
    for (const history of this.#histories) history.deref()?.letGo("overwritten");
    this.#histories = new Set();
  }

  /** Takes over the contents of another storage, which is left without; its own stay as the version before. */
  replaceWith(next: Storage): void {
    const former = this.#version;
    this.overwritten();
    const past = new Storage(this.device, this.dtype, this.elementCount);
    const { memory } = this.device;
    past.#holding = this.#holding && memory.move(this.#holding, past);
    past.#evicted = this.#evicted;
    this.#evicted = null;
    this.#holding = next.#holding && memory.move(next.#holding, this);
    next.#holding = null;
    this.#uses++;
    former.past = past;
    this.#former = new WeakRef(former);
  }

  /** Gives up the contents of the version before. */
  forgetPast(): void {
    const former = this.#former?.deref();
    this.#former = null;
    if (!former) return;
    const { past } = former;
    former.past = null;
    if (past && this.#pins > 0) this.#waiting.push(past);
    else past?.dispose();
  }

  /** True when there is memory behind it. */
  get hasBuffer(): boolean {
    return this.#holding !== null;
  }

  /** The memory, allocated at first use, with the contents in it again where they were evicted. Throws DeviceError when it was disposed. */
  get buffer(): BackendBuffer {
    this.#checkAlive();
    this.#uses++;
    if (!this.#holding) {
      this.#holding = this.device.memory.allocate(this);
      if (this.#evicted) this.device.backend.write(this.#holding.buffer, this.#evicted);
      this.#evicted = null;
    }
    return this.#holding.buffer;
  }

  /** The contents, in the caller's own bytes. Rejects with DeviceError when it was disposed, and when the device was lost. */
  async read(): Promise<Uint8Array> {
    this.#checkAlive();
    this.#wasRead = true;
    if (this.#evicted) return this.#evicted.slice();
    const { backend, memory } = this.device;
    const { buffer } = this;
    this.pin();
    memory.readCount++;
    try {
      return await backend.read(buffer, this.bytes);
    } finally {
      memory.readCount--;
      this.unpin();
    }
  }

  /** From now until `unpin` the contents stay, even when it is disposed meanwhile. */
  pin(): void {
    this.#pins++;
  }

  unpin(): void {
    this.#pins--;
    if (this.#pins === 0) for (const past of this.#waiting.splice(0)) past.dispose();
    if (this.#isDisposed) this.#release();
  }

  /** `assign` replaces the contents from now on. */
  becomeState(): void {
    this.#isResult = false;
  }

  /** True for results that may give their memory up: they were read once, and who reads a value is mostly done with it. */
  get isEvictable(): boolean {
    return this.#isResult && this.#wasRead && this.#pins === 0 && this.#holding !== null;
  }

  /** Moves the contents to JavaScript's memory until they are used again; leaves them where they are when they are needed meanwhile. */
  async evict(): Promise<void> {
    const holding = this.#holding;
    if (!holding) return;
    const uses = this.#uses;
    const contents = await this.device.backend.read(holding.buffer, this.bytes);
    if (this.#holding !== holding || this.#uses !== uses || !this.isEvictable) return;
    this.#evicted = contents;
    this.#release();
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.forgetPast();
    this.#release();
  }

  #release(): void {
    if (this.#pins > 0) return;
    if (this.#isDisposed) this.#evicted = null;
    if (this.#holding) this.device.memory.release(this.#holding);
    this.#holding = null;
  }

  #checkAlive(): void {
    if (!this.#isDisposed || this.#pins > 0) return;
    throw new DeviceError(
      "A tensor was used after dispose(). Dispose it after its last use, or leave it to the garbage collector.",
      this.device.name,
    );
  }
}
