import { type Code, call, type FunctionBuilder, i32, i64, type Local, ModuleBuilder, memory, op } from "./assembler.js";
import { kernelParams } from "./loop.js";

/**
 * The scheduler, which every thread runs over the shared memory. A job is a list of steps; a step is a kernel function and a number of
 * tiles, of which each thread has a share: its own n-th part, as in every other step, so that it finds in its core's cache what it wrote
 * there; then what others have left of theirs. Whoever finishes a step's last tile starts the next step, so a thread may come late, or not
 * at all, and there is no barrier that counts heads. Which thread computes a tile never matters to its result.
 *
 * A thread that was woken and does not come can be stood in for by one of a reserve. Who calls it also asks the next thread that wakes from
 * its sleep to go into the reserve, so that as many threads compute as before.
 *
 * The thread that has an event loop takes part in slices: it looks at the clock between tiles, and goes when its time is over.
 */

/** Addresses of the control block; each counter that threads write has a cache line of its own. */
export const control = {
  /** Tiles of the current step that nobody has taken; ≤ 0 when there is nothing to take. */
  open: 64,
  /** Tiles of the current step that are not finished. */
  unfinished: 128,
  /** Grows with every step and every job; sleeping threads wait on it. */
  signal: 192,
  sleepers: 256,
  /** Those of the sleepers that wait for the end of a job. */
  awaiting: 260,
  /** Calls that no thread of the reserve has answered; the reserve waits on it. */
  called: 264,
  /** 1 when a thread is to go into the reserve. */
  surplus: 268,
  /** Not 0 once a thread has failed: the address of the length in bytes of what it says, and of the text after it. */
  failure: 272,
  /** Jobs finished so far. A thread that may not block listens to it with Atomics.waitAsync, and says so in `listening`. */
  finished: 320,
  listening: 324,
  /** Grows when new kernel functions are published. A thread that sees another number calls `refresh` before it runs a tile. */
  library: 384,
  /** Address of the current step, and address after the last one. */
  step: 388,
  end: 392,
  /** Address of the first published module: [address of the next, length in bytes, bytes …]. */
  modules: 396,
  /** The tile at which `solo` goes on. */
  resume: 400,
  /** For each thread, a cache line apart, how many tiles of its share are taken. */
  taken: 512,
} as const;

/** Bytes of a cache line. */
export const lineBytes = 64;

/** Bytes of the control block of so many threads. */
export function controlBytes(threads: number): number {
  return control.taken + lineBytes * threads;
}

/** A step in memory: number of the kernel function in the table, tiles, address of the slots' addresses, estimated time of a tile. */
export const stepFields = { entry: 0, tiles: 4, slots: 8, tileNanoseconds: 12, bytes: 16 } as const;

/** Estimated nanoseconds between two looks at the clock. A look takes fifty. */
const lookNanoseconds = 50000;
/** What a wait for the next step counts for, which mostly takes longer. */
const waitNanoseconds = 2000;
/** Looks at the signal before a thread that takes part in slices goes to sleep once more, where it found nothing to do. */
const spinsAfterNap = 1000;
/** Nanoseconds for which a thread that takes part in slices sleeps at most. */
const napNanoseconds = 2000000n;

/**
 * The function number of a step that covers the tiles of several functions. In place of slots it has their count, and for each, ascending,
 * the number of its first tile, its function and the address of its slots' addresses.
 */
export const groupEntry = -1;
const memberFields = { tile: 4, entry: 8, slots: 12, bytes: 12 } as const;

export interface DriverExports {
  /**
   * Takes part in jobs as thread `thread` until `finished` reaches `jobs` or a thread fails; for ever when jobs is -1. After `spins` looks at
   * the signal it sleeps. With `leaves` = 1 it returns as soon as all tiles of a job's last step are taken, though others may still be at theirs.
   * With `isSliced` = 1 it returns 1 when `isLate` says so, and sleeps for moments only; else 0.
   */
  drive(jobs: number, thread: number, scratch: number, spins: number, leaves: number, isSliced: number): number;
  /**
   * Runs steps alone from a tile of the first on, without any synchronisation. The one function that exists without shared memory. With
   * `isSliced` = 1 it ends early when `isLate` says so. Returns the address of the step to go on with, `end` when all is done; the tile is at `resume`.
   */
  solo(first: number, tile: number, end: number, scratch: number, isSliced: number): number;
  /** Starts a job. Threads are woken when there is more than one tile to take, or `isAway` = 1 says that the caller takes none. */
  start(first: number, end: number, isAway: number): void;
}

const at = (address: number): Code => i32(address);
const atomicLoad = (address: number): Code => memory("i32.atomic.load", 0, at(address));
const atomicStore = (address: number, value: Code): Code => memory("i32.atomic.store", 0, at(address), value);
const field = (step: Code, offset: number): Code => memory("i32.load", offset, step);

/** The scheduler of so many threads, of shared memory or for one thread alone. */
export function printDriver(isShared: boolean, threads: number): Uint8Array<ArrayBuffer> {
  const imports = ["refresh", "isLate"].map((name) => ({ name, params: [], results: ["i32"] as const }));
  const module = new ModuleBuilder({ isShared, usesTable: true, imports });
  const [refresh, isLate] = [0, 1];
  const run = module.function(["i32", "i32", "i32"], []);
  printRun(run, (entry, ...operands) => module.callIndirect([...kernelParams], [], entry, ...operands));
  const runTile = (step: Code, tile: Code, scratch: Code): Code => call(run.index, step, tile, scratch);

  printSolo(module.function(["i32", "i32", "i32", "i32", "i32"], ["i32"], "solo"), isLate, runTile);
  if (!isShared) return module.bytes();
  const open = module.function(["i32", "i32"], []);
  printOpen(open, threads);
  const take = module.function(["i32", "i32"], ["i32"]);
  printTake(take, threads);
  const start = module.function(["i32", "i32", "i32"], [], "start");
  start.emit(memory("i32.store", 0, at(control.end), start.param(1).get));
  start.emit(call(open.index, start.param(0).get, start.param(2).get));
  const drive = module.function(["i32", "i32", "i32", "i32", "i32", "i32"], ["i32"], "drive");
  printDrive(drive, { open: open.index, take: take.index, refresh, isLate }, runTile);
  return module.bytes();
}

/** Calls the function of a tile: the step's own, or the one of the group that the tile belongs to. */
function printRun(f: FunctionBuilder, kernel: (entry: Code, ...operands: readonly Code[]) => Code): void {
  const [step, tile, scratch] = [f.param(0), f.param(1), f.param(2)];
  const entry = f.let("i32", field(step.get, stepFields.entry));
  const slots = f.let("i32", field(step.get, stepFields.slots));
  f.if(op("i32.lt_s", entry.get, i32(0)), () => {
    // The last member whose first tile is not after this one, by halving.
    const low = f.let("i32", i32(0));
    const high = f.let("i32", memory("i32.load", 0, slots.get));
    const middle = f.local("i32");
    const member = (index: Code): Code => op("i32.add", slots.get, op("i32.mul", index, i32(memberFields.bytes)));
    f.loop((again) => {
      f.if(op("i32.gt_s", op("i32.sub", high.get, low.get), i32(1)), () => {
        f.emit(middle.set(op("i32.shr_u", op("i32.add", low.get, high.get), i32(1))));
        f.if(
          op("i32.le_s", field(member(middle.get), memberFields.tile), tile.get),
          () => f.emit(low.set(middle.get)),
          () => f.emit(high.set(middle.get)),
        );
        f.br(again);
      });
    });
    f.emit(slots.set(member(low.get)));
    f.emit(tile.set(op("i32.sub", tile.get, field(slots.get, memberFields.tile))));
    f.emit(entry.set(field(slots.get, memberFields.entry)));
    f.emit(slots.set(field(slots.get, memberFields.slots)));
  });
  f.emit(kernel(entry.get, slots.get, tile.get, scratch.get));
}

function printSolo(f: FunctionBuilder, isLate: number, runTile: (step: Code, tile: Code, scratch: Code) => Code): void {
  const [step, tile, end, scratch, isSliced] = [f.param(0), f.param(1), f.param(2), f.param(3), f.param(4)];
  const spent = f.local("i32");
  f.while(step, end.get, i32(stepFields.bytes), () => {
    f.while(tile, field(step.get, stepFields.tiles), i32(1), () => {
      f.emit(runTile(step.get, tile.get, scratch.get));
      f.if(isSliced.get, () =>
        printLook(f, { spent, nanoseconds: field(step.get, stepFields.tileNanoseconds), isLate }, () => {
          f.emit(memory("i32.store", 0, at(control.resume), op("i32.add", tile.get, i32(1))));
          f.emit([step.get, op("return")]);
        }),
      );
    });
    f.emit(tile.set(i32(0)));
  });
  f.emit(step.get);
}

/** Adds a tile's time to what was spent since the last look at the clock; looks where that is enough. */
function printLook(
  f: FunctionBuilder,
  { spent, nanoseconds, isLate }: { readonly spent: Local; readonly nanoseconds: Code; readonly isLate: number },
  whenLate: () => void,
): void {
  f.emit(spent.set(op("i32.add", spent.get, nanoseconds)));
  f.if(op("i32.gt_s", spent.get, i32(lookNanoseconds)), () => {
    f.emit(spent.set(i32(0)));
    f.if(call(isLate), whenLate);
  });
}

/** Offers a step's tiles. `open` comes last: who takes a tile of the step sees all that belongs to it. */
function printOpen(f: FunctionBuilder, threads: number): void {
  const tiles = f.let("i32", field(f.param(0).get, stepFields.tiles));
  for (let thread = 0; thread < threads; thread++) f.emit(memory("i32.store", 0, at(control.taken + lineBytes * thread), i32(0)));
  f.emit(memory("i32.store", 0, at(control.step), f.param(0).get));
  f.emit(atomicStore(control.unfinished, tiles.get));
  f.emit(atomicStore(control.open, tiles.get));
  printSignal(f, op("i32.or", op("i32.gt_s", tiles.get, i32(1)), f.param(1).get));
}

/**
 * The number of a tile nobody has: of a thread's own share, else of the next thread's that has some left. The caller has counted itself at
 * `open`, which lets no more callers in than there are tiles, so that one is left for each.
 */
function printTake(f: FunctionBuilder, threads: number): void {
  const [tiles, thread] = [f.param(0), f.param(1)];
  const each = f.let("i32", op("i32.div_u", tiles.get, i32(threads)));
  const more = f.let("i32", op("i32.rem_u", tiles.get, i32(threads)));
  const counter = f.local("i32");
  const share = f.local("i32");
  const taken = f.local("i32");
  f.loop((again) => {
    f.emit(counter.set(op("i32.mul", thread.get, i32(lineBytes))));
    // The first shares have one tile more, where tiles do not divide.
    f.emit(share.set(op("i32.add", each.get, op("i32.lt_u", thread.get, more.get))));
    f.if(op("i32.lt_u", memory("i32.atomic.load", control.taken, counter.get), share.get), () => {
      f.emit(taken.set(memory("i32.atomic.rmw.add", control.taken, counter.get, i32(1))));
      f.if(op("i32.lt_u", taken.get, share.get), () => {
        const before = [thread.get, more.get, op("i32.lt_u", thread.get, more.get), op("select")];
        f.emit([op("i32.add", taken.get, op("i32.add", op("i32.mul", each.get, thread.get), before)), op("return")]);
      });
    });
    f.emit(thread.set(op("i32.rem_u", op("i32.add", thread.get, i32(1)), i32(threads))));
    f.br(again);
  });
  f.emit(op("unreachable"));
}

/** Tells waiting threads that something has changed; wakes sleepers only where that helps. */
function printSignal(f: FunctionBuilder, isWorthWaking: Code): void {
  f.emit([memory("i32.atomic.rmw.add", 0, at(control.signal), i32(1)), op("drop")]);
  f.if(op("i32.and", op("i32.ne", isWorthWaking, i32(0)), op("i32.gt_s", atomicLoad(control.sleepers), i32(0))), () => {
    f.emit([memory("memory.atomic.notify", 0, at(control.signal), i32(-1)), op("drop")]);
  });
}

function printDrive(
  f: FunctionBuilder,
  functions: { readonly open: number; readonly take: number; readonly refresh: number; readonly isLate: number },
  runTile: (step: Code, tile: Code, scratch: Code) => Code,
): void {
  const [jobs, thread, scratch, spins, leaves, isSliced] = [f.param(0), f.param(1), f.param(2), f.param(3), f.param(4), f.param(5)];
  const { open, take, refresh, isLate } = functions;
  const spent = f.local("i32");
  const nanoseconds = f.local("i32");
  const most = f.let("i32", spins.get);
  const leave = (isMore: number): void => f.emit([i32(isMore), op("return")]);
  const version = f.let("i32", call(refresh));
  const step = f.local("i32");
  const signal = f.local("i32");
  const spin = f.local("i32");
  f.loop((again) => {
    f.if(op("i32.gt_s", atomicLoad(control.open), i32(0)), () => {
      f.if(op("i32.gt_s", memory("i32.atomic.rmw.sub", 0, at(control.open), i32(1)), i32(0)), () => {
        f.if(op("i32.ne", atomicLoad(control.library), version.get), () => f.emit(version.set(call(refresh))));
        f.emit(step.set(memory("i32.load", 0, at(control.step))));
        f.emit(nanoseconds.set(field(step.get, stepFields.tileNanoseconds)));
        f.emit(most.set(spins.get));
        f.emit(runTile(step.get, call(take, field(step.get, stepFields.tiles), thread.get), scratch.get));
        f.if(op("i32.eq", memory("i32.atomic.rmw.sub", 0, at(control.unfinished), i32(1)), i32(1)), () => {
          f.emit(step.set(op("i32.add", step.get, i32(stepFields.bytes))));
          f.if(
            op("i32.lt_u", step.get, memory("i32.load", 0, at(control.end))),
            () => f.emit(call(open, step.get, i32(0))),
            () => {
              // Only the thread that finishes a job writes this. It wraps before it would turn negative.
              const next = op("i32.and", op("i32.add", atomicLoad(control.finished), i32(1)), i32(0x7fffffff));
              f.emit(atomicStore(control.finished, next));
              f.if(atomicLoad(control.listening), () => {
                f.emit([memory("memory.atomic.notify", 0, at(control.finished), i32(-1)), op("drop")]);
              });
              printSignal(f, atomicLoad(control.awaiting));
            },
          );
        });
        f.if(isSliced.get, () => printLook(f, { spent, nanoseconds: nanoseconds.get, isLate }, () => leave(1)));
      });
      f.br(again);
    });
    const isOver = (): Code => op("i32.or", op("i32.eq", atomicLoad(control.finished), jobs.get), atomicLoad(control.failure));
    f.if(isOver(), () => leave(0));
    f.if(leaves.get, () => {
      const next = op("i32.add", memory("i32.load", 0, at(control.step)), i32(stepFields.bytes));
      f.if(op("i32.ge_u", next, memory("i32.load", 0, at(control.end))), () => leave(0));
    });
    f.if(isSliced.get, () => printLook(f, { spent, nanoseconds: i32(waitNanoseconds), isLate }, () => leave(1)));
    f.emit(signal.set(atomicLoad(control.signal)));
    // Something may have been offered before the signal was read.
    f.brIf(again, op("i32.gt_s", atomicLoad(control.open), i32(0)));
    f.brIf(again, isOver());
    f.emit(spin.set(i32(0)));
    f.loop((spinning) => {
      f.if(op("i32.eq", atomicLoad(control.signal), signal.get), () => {
        f.emit(spin.set(op("i32.add", spin.get, i32(1))));
        f.brIf(spinning, op("i32.lt_u", spin.get, most.get));
        f.emit([memory("i32.atomic.rmw.add", 0, at(control.sleepers), i32(1)), op("drop")]);
        f.if(op("i32.ge_s", jobs.get, i32(0)), () => f.emit([memory("i32.atomic.rmw.add", 0, at(control.awaiting), i32(1)), op("drop")]));
        const longest = [i64(napNanoseconds), i64(-1n), isSliced.get, op("select")];
        f.emit([memory("memory.atomic.wait32", 0, at(control.signal), signal.get, longest), op("drop")]);
        f.if(op("i32.ge_s", jobs.get, i32(0)), () => f.emit([memory("i32.atomic.rmw.sub", 0, at(control.awaiting), i32(1)), op("drop")]));
        f.emit([memory("i32.atomic.rmw.sub", 0, at(control.sleepers), i32(1)), op("drop")]);
        f.if(op("i32.lt_s", jobs.get, i32(0)), () => printReserve(f));
        f.if(isSliced.get, () => {
          // Whoever is waited for may need this core; and time has passed.
          f.emit(most.set(i32(spinsAfterNap)));
          f.emit(spent.set(i32(lookNanoseconds)));
        });
      });
    });
    f.br(again);
  });
  f.emit(op("unreachable"));
}

/** Waits in the reserve, where a thread more than enough is awake, until a call comes. */
function printReserve(f: FunctionBuilder): void {
  f.if(memory("i32.atomic.rmw.xchg", 0, at(control.surplus), i32(0)), () => {
    f.loop((again) => {
      f.if(op("i32.le_s", memory("i32.atomic.rmw.sub", 0, at(control.called), i32(1)), i32(0)), () => {
        f.emit([memory("i32.atomic.rmw.add", 0, at(control.called), i32(1)), op("drop")]);
        f.emit([memory("memory.atomic.wait32", 0, at(control.called), i32(0), i64(-1n)), op("drop")]);
        f.br(again);
      });
    });
  });
}
