import { eventLoopTurn, isTurnDue } from "../../graph/event-loop.js";
import type { Threads } from "./threads.js";

/** Jobs that may wait; who enqueues more waits himself, so that not every result of a long loop is there at once. */
const mostJobs = 8;

/** A run of steps: `begin` writes its addresses and starts it, or `runAway` does both where this thread may not take part. */
export interface Job {
  begin(): void;
  runAway(): Promise<void>;
}

type Task = { readonly fail: (error: unknown) => void } & (
  | { readonly kind: "job"; readonly job: Job; isBegun: boolean }
  | { readonly kind: "action"; readonly action: () => void }
);

const ignore = (): void => undefined;

/**
 * What was asked of the backend and is not done, in the order of the calls. A job whose time fits between two turns of the event loop is done
 * at once. Else it goes on from turn to turn: workers compute on while this thread's signals, timers and messages are dealt with.
 */
export class Queue {
  readonly #threads: Threads;
  readonly #tasks: Task[] = [];
  #jobCount = 0;
  /** Tasks that ever waited, and those of them that are done. */
  #pushed = 0;
  #taken = 0;
  #isServed = false;
  /** Why nothing runs any more. */
  #error: unknown = null;

  constructor(threads: Threads) {
    this.#threads = threads;
  }

  /** Whether nothing waits; a last tile may be under way. */
  get isEmpty(): boolean {
    return this.#tasks.length === 0;
  }

  /** Stands for all that was asked for so far. */
  get ticket(): number {
    return this.#pushed;
  }

  /** Whether all that had been asked for when the ticket was current is done; a last tile may be under way. */
  isDone(ticket: number): boolean {
    return this.#taken >= ticket;
  }

  /** Does something now, or after what waits. */
  do(action: () => void): void {
    if (this.isEmpty) action();
    else this.#push({ kind: "action", action, fail: ignore });
  }

  /** The same where the event loop need not wait for it. */
  doInTurn(action: () => void): void {
    if (this.isEmpty && !isTurnDue()) action();
    else this.#push({ kind: "action", action, fail: ignore });
  }

  /** Runs a job now, or begins it, or leaves it for later. Throws what an earlier one has failed with. */
  run(job: Job): void {
    if (this.#error) throw this.#error;
    const { runsInline } = this.#threads;
    const isNow = runsInline && this.isEmpty;
    if (isNow) {
      job.begin();
      if (!isTurnDue() && this.#threads.advance(true)) return;
    }
    this.#jobCount++;
    this.#push({ kind: "job", job, isBegun: isNow, fail: ignore });
    while (runsInline && this.#jobCount > mostJobs) this.#finishFirst();
  }

  /** Resolves to what `action` returns when all before it is done, after a turn of the event loop where that is due. */
  async after<T>(action: () => T): Promise<T> {
    if (this.#error) throw this.#error;
    if (this.isEmpty && !isTurnDue() && this.#threads.settleSlice()) return action();
    return new Promise((resolve, fail) => {
      // What this action throws is its caller's, and ends nothing else.
      const settle = (): void => {
        try {
          resolve(action());
        } catch (error) {
          fail(error);
        }
      };
      this.#push({ kind: "action", action: settle, fail });
    });
  }

  /** Does all that waits before it returns, where this thread may wait. */
  drain(): void {
    while (this.#threads.runsInline && !this.isEmpty) this.#finishFirst();
  }

  /** Nothing runs any more; who waits is told why. */
  fail(error: unknown): void {
    this.#error ??= error;
    this.#jobCount = 0;
    this.#taken = this.#pushed;
    for (const { fail } of this.#tasks.splice(0)) fail(error);
  }

  #push(task: Task): void {
    this.#tasks.push(task);
    this.#pushed++;
    if (this.#isServed) return;
    this.#isServed = true;
    void this.#serve();
  }

  async #serve(): Promise<void> {
    while (!this.isEmpty) {
      try {
        if (this.#threads.runsInline) {
          await eventLoopTurn();
          while (this.#advanceFirst());
        } else await this.#doFirstAway();
      } catch (error) {
        this.fail(error);
      }
    }
    this.#isServed = false;
  }

  /** Goes on with the first task until the event loop is due. Returns whether there is time for the next. */
  #advanceFirst(): boolean {
    const [task] = this.#tasks;
    if (!task) return false;
    const isJob = task.kind === "job";
    if (!(isJob && task.isBegun) && !this.#threads.settleSlice()) return false;
    if (isJob) {
      if (!task.isBegun) task.job.begin();
      task.isBegun = true;
      if (!this.#threads.advance(true)) return false;
    }
    this.#take(task);
    return !isTurnDue();
  }

  #finishFirst(): void {
    const [task] = this.#tasks;
    if (!task) return;
    try {
      if (task.kind === "job" && !task.isBegun) task.job.begin();
      this.#threads.settle();
      this.#take(task);
    } catch (error) {
      this.fail(error);
      throw error;
    }
  }

  async #doFirstAway(): Promise<void> {
    const [task] = this.#tasks;
    if (task?.kind === "job") await task.job.runAway();
    // It may have failed meanwhile.
    if (task && task === this.#tasks[0]) this.#take(task);
  }

  /** The first task is done, but for its action. */
  #take(task: Task): void {
    this.#tasks.shift();
    this.#taken++;
    if (task.kind === "job") this.#jobCount--;
    else task.action();
  }
}
