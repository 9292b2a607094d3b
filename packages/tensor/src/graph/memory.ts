import { OutOfMemoryError, showBytes } from "../tensor/errors.js";
import type { Backend, BackendBuffer } from "./backend.js";
import { collectGarbage } from "./collector.js";
import { eventLoopTurn } from "./event-loop.js";
import type { Storage } from "./storage.js";

/** The memory of a storage. It does not keep the storage alive: memory whose storage is gone is free. */
export interface Holding {
  readonly buffer: BackendBuffer;
  /** Null for memory so small that it is left to the finalizer alone. */
  readonly storage: WeakRef<Storage> | null;
  isReleased: boolean;
}

/**
 * What is done when memory runs short:
 * - `sync`: garbage is collected, and what still finds no room throws;
 * - `first`: the same where there may be much garbage; what still finds no room waits for it;
 * - `again`: it goes on waiting;
 * - `last`: it throws, since all has been done.
 */
type Shortage = "sync" | "first" | "again" | "last";

/** Work that takes memory. It does as much or nothing. */
export interface Work {
  /** Throws OutOfMemoryError when there is no room. `isHurried`: values alone, since what they are computed from is about to change. */
  run(isHurried: boolean): void;
  /** The storages that it reads. */
  inputs(): Iterable<Storage>;
}

/** Work that waits for room. Its inputs stay until it is done. */
interface Waiting {
  readonly work: Work;
  readonly inputs: ReadonlySet<Storage>;
  isDone: boolean;
  error: unknown;
}

/** From this share of the budget on, growth is worth a turn of the event loop. */
const turnShare = 1 / 16;
/** What calls that can wait leave free for those that cannot: a share of the budget, and at most so many bytes. */
const spareShare = 1 / 16;
/** From this share of the budget on, growth is worth a collection of garbage. */
const collectionShare = 1 / 8;
const maxSpareBytes = 64 * 2 ** 20;
/** Memory below this share of the budget is not looked for: a WeakRef costs half a microsecond. */
const smallShare = 2 ** -20;
/** Where garbage is collected when the runtime sees fit: rounds of waiting for it, and what each allocates to hasten it. */
const pressureRounds = 8;
const pressureBytes = 64 * 2 ** 20;
const pressureMs = 10;
/** Turns of the event loop that reads get to end after the device is done. */
const readTurns = 100;

/**
 * Who holds a device's memory, and how room is made when it runs short. JavaScript's garbage collector does not see this memory, so
 * results that a program drops without `dispose()` can fill it while the collector sees no need to look for them.
 *
 * Whatever takes memory goes through `within`. Only when it finds none, room is made: finalizers run in a turn of the event loop; garbage is
 * collected, where that can be asked for; results whose value was read are evicted, which keeps their value in JavaScript's memory until
 * they are used again. A call that cannot wait does the second alone.
 */
export class DeviceMemory {
  readonly #backend: Backend;
  /** All but small ones, oldest first. */
  readonly #holdings = new Set<Holding>();
  #heldBytes = 0;
  readonly #abandoned = new FinalizationRegistry<Holding>((holding) => this.release(holding));
  /** Reads that are under way, in which their storages cannot be evicted. */
  readCount = 0;
  readonly #waiting = new Set<Waiting>();
  /** The last of those that wait for room, one after another. */
  #line: Promise<void> = Promise.resolve();
  #shortage: Shortage = "sync";
  /** Bytes in use after the last collection, when the event loop was last given a turn, and when room was last made ahead. */
  #afterCollection = 0;
  #afterTurn = 0;
  #afterSpare = 0;
  readonly #spareBytes: number;
  #isClosed = false;

  constructor(
    backend: Backend,
    /** Gives up what keeps memory for convenience alone, before results have to leave it. */
    readonly letGo: () => void = () => undefined,
  ) {
    this.#backend = backend;
    this.#spareBytes = Math.min(backend.limits.budgetBytes * spareShare, maxSpareBytes);
  }

  /** Bytes that storages hold. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Memory for a storage. Throws OutOfMemoryError when there is none. */
  allocate(storage: Storage): Holding {
    const { bytes } = storage;
    const buffer = this.within(() => this.#backend.allocate(Math.max(bytes, 4)));
    const isSmall = bytes < this.#backend.limits.budgetBytes * smallShare;
    const holding: Holding = { buffer, storage: isSmall ? null : new WeakRef(storage), isReleased: false };
    if (!isSmall) this.#holdings.add(holding);
    this.#heldBytes += buffer.bytes;
    this.#abandoned.register(storage, holding, holding);
    return holding;
  }

  /** Memory goes over from its storage to another one of the same size. */
  move(holding: Holding, storage: Storage): Holding {
    holding.isReleased = true;
    if (holding.storage) this.#holdings.delete(holding);
    this.#abandoned.unregister(holding);
    const moved: Holding = { buffer: holding.buffer, storage: holding.storage && new WeakRef(storage), isReleased: false };
    if (moved.storage) this.#holdings.add(moved);
    this.#abandoned.register(storage, moved, moved);
    return moved;
  }

  /** Gives a storage's memory back. */
  release(holding: Holding): void {
    if (holding.isReleased) return;
    holding.isReleased = true;
    if (holding.storage) this.#holdings.delete(holding);
    this.#heldBytes -= holding.buffer.bytes;
    this.#abandoned.unregister(holding);
    if (!this.#isClosed) this.#backend.free(holding.buffer);
  }

  /** The device is gone, and its memory with it. */
  close(): void {
    this.#isClosed = true;
    this.#holdings.clear();
  }

  /** Does what takes memory, after making room if need be. Throws OutOfMemoryError when there is none. */
  within<T>(take: () => T): T {
    try {
      return take();
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      if (!this.#collectsNow()) throw this.#shortage === "sync" ? this.#explained(error) : error;
    }
    try {
      return take();
    } catch (error) {
      throw error instanceof OutOfMemoryError && this.#shortage === "sync" ? this.#explained(error) : error;
    }
  }

  /**
   * Makes room, if need be, for a plan that takes so many bytes more than there are, before it makes do with less. Throws OutOfMemoryError
   * where more can be made by waiting.
   */
  wants(missing: () => number): void {
    if (missing() <= 0) return;
    if (this.#shortage !== "last" && this.#mayHoldGarbage() && this.#collectsNow() && missing() <= 0) return;
    const mayWait = this.#shortage === "first" && (this.#evictable().length > 0 || this.#mayHoldGarbage());
    if (!mayWait && this.#shortage !== "again") return;
    throw new OutOfMemoryError("A plan finds no room for all its values", "wait until room was made", missing(), this.#backend.name);
  }

  /**
   * Does what takes memory, at once where there is room (null), else as soon as there is. Rejects with OutOfMemoryError, having done nothing,
   * when none can be made.
   */
  whenRoom(work: Work): Promise<void> | null {
    const short = this.#attempt(work, "first");
    return short && this.#wait(work, short);
  }

  async #wait(work: Work, short: OutOfMemoryError): Promise<void> {
    const waiting: Waiting = { work, inputs: new Set(work.inputs()), isDone: false, error: null };
    this.#waiting.add(waiting);
    for (const storage of waiting.inputs) storage.pin();
    try {
      await this.#inLine(() => this.#makeRoom(waiting, short));
    } finally {
      this.#waiting.delete(waiting);
      for (const storage of waiting.inputs) storage.unpin();
    }
    if (waiting.error) throw waiting.error;
  }

  /** Storages are about to be overwritten: what waits for room and reads them is done now, or fails. */
  beforeWriting(storages: readonly Storage[]): void {
    for (const waiting of this.#waiting) {
      if (!storages.some((storage) => waiting.inputs.has(storage))) continue;
      this.#waiting.delete(waiting);
      waiting.isDone = true;
      try {
        waiting.error = this.#attempt(waiting.work, "sync", true);
      } catch (error) {
        waiting.error = error;
      }
    }
  }

  /**
   * What a call that can wait does for those that cannot: a turn of the event loop, in which finalizers give memory back, when much was
   * taken since the last one, and room where little is left. Null where nothing has to be done.
   */
  breathe(): Promise<void> | null {
    const { counters, limits } = this.#backend;
    const { bytesInUse } = counters;
    this.#afterTurn = Math.min(this.#afterTurn, bytesInUse);
    this.#afterSpare = Math.min(this.#afterSpare, bytesInUse);
    const missing = bytesInUse + this.#spareBytes - limits.budgetBytes;
    // Where nothing could be done, more must have come before it is tried again.
    if (missing > 0 && bytesInUse - this.#afterSpare > this.#spareBytes / 4) return this.#spare(missing);
    return bytesInUse - this.#afterTurn > limits.budgetBytes * turnShare ? this.#turn() : null;
  }

  /** Frees so many bytes, if that can be done. */
  #spare(missing: number): Promise<void> {
    const { counters } = this.#backend;
    return this.#inLine(async () => {
      const goal = counters.bytesInUse - missing;
      const steps = [() => this.#turn(), () => this.#collectIfWorth(), () => this.#evict(counters.bytesInUse - goal)];
      for (const step of steps) if (counters.bytesInUse > goal) await step();
      if (counters.bytesInUse > goal && this.#mayHoldGarbage()) await this.#collect(counters.bytesInUse - goal);
      this.#afterSpare = counters.bytesInUse;
    });
  }

  /** Does something after all that makes room already. */
  #inLine(work: () => Promise<void>): Promise<void> {
    const done = this.#line.then(work);
    this.#line = done.catch(() => undefined);
    return done;
  }

  async #collectIfWorth(): Promise<void> {
    if (this.#mayHoldGarbage()) this.#collectsNow();
  }

  async #turn(): Promise<void> {
    await eventLoopTurn();
    this.#afterTurn = this.#backend.counters.bytesInUse;
  }

  /** Null when it was done, else what it lacked. */
  #attempt(work: Work, shortage: Shortage, isHurried = false): OutOfMemoryError | null {
    const before = this.#shortage;
    this.#shortage = shortage;
    try {
      work.run(isHurried);
      return null;
    } catch (error) {
      if (error instanceof OutOfMemoryError) return error;
      throw error;
    } finally {
      this.#shortage = before;
    }
  }

  async #makeRoom(waiting: Waiting, found: OutOfMemoryError): Promise<void> {
    let short = found;
    const { counters } = this.#backend;
    const steps = [
      async (missing: number) => {
        // There is room, and what is under way holds it.
        if (missing <= 0) await this.#backend.finish();
        await this.#turn();
      },
      () => this.#collectIfWorth(),
      (missing: number) => this.#evict(missing),
      async (missing: number) => {
        await this.#readsEnd();
        await this.#evict(missing);
      },
      (missing: number) => this.#collect(missing),
    ];
    let goal = counters.bytesInUse - short.missingBytes;
    for (const step of steps) {
      await step(counters.bytesInUse - goal);
      if (waiting.isDone) return;
      if (counters.bytesInUse > goal) continue;
      // Assignments that it takes with it need not wait for itself.
      this.#waiting.delete(waiting);
      const stillShort = this.#attempt(waiting.work, "again");
      if (!stillShort) return;
      this.#waiting.add(waiting);
      short = stillShort;
      goal = counters.bytesInUse - short.missingBytes;
    }
    this.#waiting.delete(waiting);
    const stillShort = this.#attempt(waiting.work, "last");
    if (stillShort) throw this.#explained(stillShort);
  }

  #mayHoldGarbage(): boolean {
    const { counters, limits } = this.#backend;
    this.#afterCollection = Math.min(this.#afterCollection, counters.bytesInUse);
    return counters.bytesInUse - this.#afterCollection > limits.budgetBytes * collectionShare;
  }

  /** Collects garbage and frees its memory; false where that is of no use or cannot be asked for. */
  #collectsNow(): boolean {
    if (this.#shortage === "last" || this.#shortage === "again") return false;
    if (this.#shortage === "first" && !this.#mayHoldGarbage()) return false;
    this.letGo();
    if (!collectGarbage()) return false;
    this.#sweep();
    return true;
  }

  /** Frees the memory of storages that are gone. */
  #sweep(): void {
    for (const holding of this.#holdings) if (!holding.storage?.deref()) this.release(holding);
    this.#afterCollection = this.#backend.counters.bytesInUse;
  }

  async #collect(missing: number): Promise<void> {
    const { counters } = this.#backend;
    this.letGo();
    if (collectGarbage()) {
      this.#sweep();
      return;
    }
    // Finalizers alone say what is gone: whoever asks a WeakRef keeps what it stands for.
    const goal = counters.bytesInUse - missing;
    for (let round = 0; round < pressureRounds && counters.bytesInUse > goal; round++) {
      // The collector does see this.
      const pressure = new ArrayBuffer(pressureBytes);
      await new Promise((resolve) => setTimeout(resolve, pressureMs, pressure));
    }
    this.#afterCollection = counters.bytesInUse;
  }

  /** Waits for reads that are under way. */
  async #readsEnd(): Promise<void> {
    if (this.readCount > 0) await this.#backend.finish();
    for (let turn = 0; turn < readTurns && this.readCount > 0; turn++) await eventLoopTurn();
  }

  #evictable(): Storage[] {
    return [...this.#holdings].flatMap(({ storage }) => {
      const found = storage?.deref();
      return found?.isEvictable ? [found] : [];
    });
  }

  /** Evicts results, the oldest first, until so many bytes are free and a few more. */
  async #evict(missing: number): Promise<void> {
    const { counters } = this.#backend;
    const goal = counters.bytesInUse - missing - this.#spareBytes;
    for (const storage of this.#evictable()) {
      if (counters.bytesInUse <= goal) return;
      await storage.evict();
    }
  }

  #explained(error: OutOfMemoryError): OutOfMemoryError {
    const fact = `${error.fact}; tensors in use hold ${showBytes(this.#heldBytes)} of it`;
    return new OutOfMemoryError(fact, `call dispose() on those that you no longer need, ${error.remedy}`, error.missingBytes, error.device);
  }
}
