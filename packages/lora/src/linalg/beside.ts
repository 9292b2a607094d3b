import { type OperationName, type Operations, operate } from "./operations.js";

/** Threads on which decompositions run, where a place has any. */
export interface LinalgThreads {
  /** How many run at a time. */
  readonly count: number;
  /** Rejects as the operation throws. */
  run<Name extends OperationName>(name: Name, args: Parameters<Operations[Name]>): Promise<ReturnType<Operations[Name]>>;
}

/** Multiplications below which a thread is not worth its start. */
const leastWork = 2e7;

/** Bytes of matrices in float64 that may be in work at a time, each of them a few times over; one always may. */
const mostBytes = 2 ** 27;

let open: (() => LinalgThreads | null) | null = null;

/** Says where threads come from; without it all runs on the calling one. */
export function setLinalgThreads(threads: typeof open): void {
  open = threads;
}

/** An operation on a matrix [rows, columns], on a thread of its own where there is one and it is long enough. The result is the same, to the bit. */
export async function beside<Name extends OperationName>(
  name: Name,
  args: Parameters<Operations[Name]>,
  { rows, columns }: { readonly rows: number; readonly columns: number },
): Promise<ReturnType<Operations[Name]>> {
  const threads = rows * columns * Math.min(rows, columns) < leastWork ? null : (open?.() ?? null);
  if (threads) return threads.run(name, args);
  return operate(name, args);
}

/**
 * Does something for each item and takes the results in the order of the items. `begin` is called for one after the other; what it gives then
 * runs beside that of others, of as many as threads and memory allow (`bytes`: of an item's matrix in float64). Rejects with what any of it
 * rejects with, and begins nothing more.
 */
export async function eachInOrder<Item, Result>(
  items: readonly Item[],
  bytes: (item: Item) => number,
  begin: (item: Item) => Promise<() => Promise<Result>>,
  take: (result: Result, item: Item) => void,
): Promise<void> {
  const count = open?.()?.count ?? 1;
  // One more than run, so that a thread need not wait for what is read.
  const most = count === 1 ? 1 : count + 1;
  const running: { readonly item: Item; readonly bytes: number; readonly result: Promise<Result> }[] = [];
  const takeUntil = async (isEnough: () => boolean): Promise<void> => {
    for (let first = running[0]; first && !isEnough(); first = running[0]) {
      const result = await first.result;
      running.shift();
      take(result, first.item);
    }
  };
  for (const item of items) {
    const own = bytes(item);
    await takeUntil(() => running.length < most && running.reduce((sum, other) => sum + other.bytes, own) <= mostBytes);
    const result = (await begin(item))();
    // It is awaited in its turn; until then a rejection is nobody's.
    result.catch(() => undefined);
    running.push({ item, bytes: own, result });
  }
  await takeUntil(() => false);
}
