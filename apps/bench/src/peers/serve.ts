// What the peers written in JavaScript share: the loop over lines, the inputs that every side makes alike, and the shapes of the tasks.
// python/peer.py speaks the same protocol.
import { createInterface } from "node:readline";
import type { StepShape } from "../gpt-start.js";

/** What a peer is asked to prepare; the fields of a task of the protocol. */
export type Task = { readonly seed?: number } & (
  | {
      readonly task: "matmul";
      readonly m: number;
      readonly n: number;
      readonly k: number;
      readonly transA?: boolean;
      readonly transB?: boolean;
      readonly batch?: number;
    }
  | { readonly task: "elementwise"; readonly size: number }
  | { readonly task: "sum" | "softmax" | "layernorm"; readonly rows: number; readonly columns: number }
  | AttentionTask
  | { readonly task: "crossEntropy"; readonly rows: number; readonly width: number; readonly vocab: number; readonly backward?: boolean }
  | { readonly task: "gather"; readonly rows: number; readonly width: number; readonly count: number }
  | ({ readonly task: "loraStep"; readonly rank: number } & StepShape)
  | ({ readonly task: "fullStep" } & StepShape)
  | ({ readonly task: "decode"; readonly tokens: number } & Omit<StepShape, "batch" | "length">)
);

export interface AttentionTask {
  readonly task: "attention";
  readonly batch: number;
  readonly heads: number;
  readonly length: number;
  readonly headDim: number;
  readonly causal?: boolean;
  readonly backward?: boolean;
}

export type TaskOf<Name extends Task["task"]> = Extract<Task, { readonly task: Name }>;

/** A task that is ready: its sample, and its repetitions. */
export interface Prepared {
  /** Checked by the caller against a reference. */
  readonly sample: readonly number[];
  /** Does the task so many times, waits for the device and reads the last result. */
  run(count: number): Promise<void>;
  /** Gives memory back before the next task. */
  dispose?(): void;
}

/** Why a peer or one of its tasks is left out. */
export interface Skipped {
  readonly skipped: string;
}

/** What a peer says of itself. */
export interface Introduction {
  readonly name: string;
  readonly version: string;
  readonly detail: string;
}

export type Tasks = { readonly [Name in Task["task"]]?: (task: TaskOf<Name>) => Promise<Prepared | Skipped> };

/** Starts a library; the tasks are those that it can do. */
export type Open = (options: { readonly threads: number }) => Promise<(Introduction & { readonly tasks: Tasks }) | Skipped>;

/** Rows of zeros with a one at the label; a negative label's row stays zero. */
export function oneHot(labels: ArrayLike<number>, vocab: number): Float32Array<ArrayBuffer> {
  const hot = new Float32Array(labels.length * vocab);
  for (let i = 0; i < labels.length; i++) {
    const label = labels[i] ?? -1;
    if (label >= 0) hot[i * vocab + label] = 1;
  }
  return hot;
}

type Message = { open: { threads: number } } | { prepare: Task } | { run: number } | { close: true };

/** Answers each line of stdin with one on stdout until it is closed. */
export async function serve(open: Open): Promise<void> {
  // Libraries print to the console; stdout is the protocol's.
  const say = process.stdout.write.bind(process.stdout);
  console.log = console.info = console.debug = console.error;
  let tasks: Tasks = {};
  let prepared: Prepared | null = null;

  const start = async (options: { threads: number }): Promise<object> => {
    const opened = await open(options);
    if ("skipped" in opened) return opened;
    tasks = opened.tasks;
    return { name: opened.name, version: opened.version, detail: opened.detail };
  };
  const prepare = async (task: Task): Promise<object> => {
    prepared?.dispose?.();
    prepared = null;
    const make = tasks[task.task] as ((task: Task) => Promise<Prepared | Skipped>) | undefined; // the key picks the task's own kind
    if (!make) return { skipped: `no task ${task.task}` };
    const made = await make(task);
    if ("skipped" in made) return made;
    prepared = made;
    return { ready: true, sample: made.sample };
  };
  const answer = async (message: Message): Promise<object> => {
    if ("open" in message) return start(message.open);
    if ("prepare" in message) return prepare(message.prepare);
    if (!("run" in message) || !prepared) return { skipped: "nothing is prepared" };
    const from = performance.now();
    await prepared.run(message.run);
    return { seconds: (performance.now() - from) / 1000 };
  };

  for await (const line of createInterface({ input: process.stdin })) {
    const message = JSON.parse(line) as Message;
    if ("close" in message) break;
    // A failure is an answer: the suite goes on without this peer or task.
    const reply = await answer(message).catch((error: unknown) => ({
      skipped: error instanceof Error ? `${error.name}: ${error.message}` : String(error),
    }));
    say(`${JSON.stringify(reply)}\n`);
  }
  process.exit(0);
}
