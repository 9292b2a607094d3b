import type { Generator } from "./random.js";

/** First stream of draws inside compiled functions; streams below belong to draws outside. */
const firstTraceStream = 0x40000000;

/** What a compiled function did while it was recorded. */
export class Trace {
  readonly generators: Map<Generator, number> = new Map();

  /** A stream number for the next draw; the same in every recording of the same function. */
  nextStream(generator: Generator): number {
    const stream = this.generators.get(generator) ?? firstTraceStream;
    this.generators.set(generator, stream + 1);
    return stream;
  }
}

let active: Trace | null = null;

/** The recording in progress, if any. */
export function currentTrace(): Trace | null {
  return active;
}

/** Runs `fn` as a recording. Recordings do not nest: an inner compiled function becomes part of the outer one. */
export function withTrace<T>(trace: Trace, fn: () => T): T {
  const outer = active;
  active = trace;
  try {
    return fn();
  } finally {
    active = outer;
  }
}
