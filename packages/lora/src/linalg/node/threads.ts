import { existsSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { threadCount } from "@lowrank/tensor";
import { AdapterError } from "../../errors.js";
import { type LinalgThreads, setLinalgThreads } from "../beside.js";
import type { OperationName, Operations } from "../operations.js";

/** What a worker is asked. */
export interface Question {
  readonly name: OperationName;
  readonly args: Parameters<Operations[OperationName]>;
}

/** What it says. */
export type Answer =
  | { readonly kind: "result"; readonly result: object }
  | { readonly kind: "refused" | "failed"; readonly message: string };

interface Task {
  readonly question: Question;
  readonly resolve: (result: object) => void;
  readonly reject: (error: Error) => void;
}

/** Milliseconds after which a worker with nothing to do ends. */
const idleMs = 10_000;

/** Worker threads that take tasks one after another; each starts when there is something for it, and keeps no process alive. */
class Threads {
  readonly #waiting: Task[] = [];
  readonly #idle: Worker[] = [];
  readonly #ends = new Map<Worker, NodeJS.Timeout>();
  #started = 0;

  constructor(
    readonly program: URL,
    readonly count: number,
  ) {}

  run(question: Question): Promise<object> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ question, resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    const task = this.#waiting[0];
    if (!task) return;
    const worker = this.#idle.pop() ?? (this.#started < this.count ? this.#start() : undefined);
    if (!worker) return;
    clearTimeout(this.#ends.get(worker));
    this.#waiting.shift();
    this.#give(worker, task);
  }

  #start(): Worker {
    this.#started++;
    // None of the process's flags: --input-type and the like are not meant for it.
    const worker = new Worker(this.program, { execArgv: [] });
    worker.unref();
    return worker;
  }

  #give(worker: Worker, { question, resolve, reject }: Task): void {
    const settle = (): void => {
      worker.off("message", heard).off("error", failed).off("exit", ended);
      worker.unref();
    };
    const heard = (answer: Answer): void => {
      settle();
      this.#idle.push(worker);
      this.#ends.set(worker, setTimeout(() => this.#end(worker), idleMs).unref());
      if (answer.kind === "result") resolve(answer.result);
      else reject(answer.kind === "refused" ? new AdapterError(answer.message) : new Error(answer.message));
      this.#next();
    };
    const failed = (error: Error): void => {
      settle();
      this.#started--;
      reject(error);
      this.#next();
    };
    const ended = (code: number): void => failed(new Error(`A thread that decomposed a matrix ended with ${code}. Is memory short?`));
    worker.on("message", heard).on("error", failed).on("exit", ended);
    worker.ref();
    worker.postMessage(question);
  }

  #end(worker: Worker): void {
    const at = this.#idle.indexOf(worker);
    if (at < 0) return;
    this.#idle.splice(at, 1);
    this.#ends.delete(worker);
    this.#started--;
    void worker.terminate();
  }
}

/**
 * Lets decompositions run on worker threads, as many as the device `cpu` has. They run the built package: TypeScript sources have no program
 * for them, and stay on the calling thread.
 */
export function setNodeLinalgThreads(program: URL = new URL("./linalg-worker.js", import.meta.url), most?: number): void {
  let threads: LinalgThreads | null | undefined;
  setLinalgThreads(() => {
    if (threads !== undefined) return threads;
    const count = most ?? threadCount();
    const own = count > 1 && existsSync(program) ? new Threads(program, count) : null;
    // The answer is what the operation of that name returns.
    threads = own && { count, run: (name, args) => own.run({ name, args }) as Promise<never> };
    return threads;
  });
}
