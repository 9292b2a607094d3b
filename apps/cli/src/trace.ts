import { open } from "node:fs/promises";
import { type KernelTime, writeFileAtomic } from "@lowrank/tensor";

/** One slice of Chrome's trace event format ("X": complete, "i": instant); times in microseconds. */
interface TraceEvent {
  readonly name: string;
  readonly cat: string;
  readonly ph: "X" | "i";
  readonly ts: number;
  readonly dur?: number;
  readonly pid: number;
  readonly tid: number;
  readonly s?: "p";
  readonly args: Readonly<Record<string, number | string>>;
}

/** Events kept at most: a viewer takes no more, and memory would not either. */
const eventLimit = 200_000;

/** The whole trace: two names, and the events. */
function traceOf(events: readonly TraceEvent[]): object {
  const names = ["process_name", "thread_name"].map((name) => ({
    name,
    ph: "M",
    pid: 1,
    tid: 1,
    args: { name: name === "process_name" ? "lowrank" : "kernels" },
  }));
  return { displayTimeUnit: "ms", traceEvents: [...names, ...events] };
}

/** Whether a file begins as every trace of ours does. */
export async function isTrace(path: string): Promise<boolean> {
  const head = JSON.stringify(traceOf([])).slice(0, -"]}".length);
  const file = await open(path, "r");
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(head.length), 0, head.length, 0);
    return buffer.toString("utf8", 0, bytesRead) === head;
  } finally {
    await file.close();
  }
}

/** Collects kernel times and writes them in Chrome's trace format, which Perfetto and chrome://tracing open. */
export class TraceRecorder {
  readonly #events: TraceEvent[] = [];
  #lost = 0;

  /** A device's `onKernel`. */
  readonly onKernel = ({ name, startMs, ms, work }: KernelTime): void => {
    const moved = work ? work.readBytes + work.writtenBytes : 0;
    this.#add({
      name,
      cat: "kernel",
      ph: "X",
      ts: startMs * 1000,
      dur: ms * 1000,
      pid: 1,
      tid: 1,
      args: work
        ? {
            "bytes read": work.readBytes,
            "bytes written": work.writtenBytes,
            "GB/s": rate(moved, ms),
            ...(work.operations > 0 && { "GFLOP/s": rate(work.operations, ms) }),
          }
        : {},
    });
  };

  /** Notes the end of a training step at the last kernel's end. */
  step(step: number, loss: number): void {
    const last = this.#events.at(-1);
    this.#add({
      name: `step ${step}`,
      cat: "step",
      ph: "i",
      ts: last ? last.ts + (last.dur ?? 0) : 0,
      pid: 1,
      tid: 1,
      s: "p",
      args: { loss },
    });
  }

  #add(event: TraceEvent): void {
    if (this.#events.length < eventLimit) this.#events.push(event);
    else this.#lost++;
  }

  /** Writes the file; the number of events, and of those that were too many. */
  async write(path: string): Promise<{ readonly written: number; readonly lost: number }> {
    // The device's clock starts anywhere; the trace at 0.
    const start = this.#events[0]?.ts ?? 0;
    const events = this.#events.map((event) => ({ ...event, ts: event.ts - start }));
    await writeFileAtomic(path, JSON.stringify(traceOf(events)));
    return { written: this.#events.length, lost: this.#lost };
  }
}

/** Units of 10^9 a second. */
function rate(count: number, ms: number): number {
  return ms > 0 ? Number((count / ms / 1e6).toPrecision(4)) : 0;
}
