import { Worker } from "node:worker_threads";

/** Words that the threads share: the number of the job, how many have finished it, how many have started up. */
const words = { job: 0, finished: 1, ready: 2 } as const;

/** Runs in each thread: waits for a job's number, calls the module's `run` with this thread's arguments, counts itself as finished. */
const program = `
const { workerData } = require("node:worker_threads");
const { bytes, memory, control, args, index } = workerData;
const { run } = new WebAssembly.Instance(new WebAssembly.Module(bytes), memory ? { env: { memory } } : {}).exports;
run(...args[index].map((value, i) => (i === args[index].length - 1 ? 1 : value)));
Atomics.add(control, ${words.ready}, 1);
Atomics.notify(control, ${words.ready});
for (let job = 1; ; job++) {
  while (Atomics.load(control, ${words.job}) < job) Atomics.wait(control, ${words.job}, job - 1);
  run(...args[index]);
  Atomics.add(control, ${words.finished}, 1);
  Atomics.notify(control, ${words.finished});
}
`;

/** Threads that run one WebAssembly function at the same time, each with its own arguments; the last argument is a number of turns. */
export class Crew {
  readonly #control = new Int32Array(new SharedArrayBuffer(12));
  readonly #workers: readonly Worker[];
  #jobs = 0;

  constructor(bytes: Uint8Array<ArrayBuffer>, args: readonly (readonly number[])[], memory: WebAssembly.Memory | null) {
    this.#workers = args.map((_, index) => {
      const worker = new Worker(program, { eval: true, workerData: { bytes, memory, control: this.#control, args, index } });
      worker.unref();
      return worker;
    });
  }

  /** Seconds of `count` jobs, each of which ends when the slowest thread has. */
  async run(count: number): Promise<number> {
    while (Atomics.load(this.#control, words.ready) < this.#workers.length) await new Promise((resolve) => setTimeout(resolve, 1));
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      this.#jobs++;
      Atomics.store(this.#control, words.finished, 0);
      Atomics.store(this.#control, words.job, this.#jobs);
      Atomics.notify(this.#control, words.job);
      for (;;) {
        const finished = Atomics.load(this.#control, words.finished);
        if (finished === this.#workers.length) break;
        Atomics.wait(this.#control, words.finished, finished);
      }
    }
    return (performance.now() - start) / 1000;
  }

  async end(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}
