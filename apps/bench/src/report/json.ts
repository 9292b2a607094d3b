import { cpus, totalmem } from "node:os";
import type { Outcome } from "../bars/bar.js";
import type { CaseResult } from "../families/measure.js";
import type { Roofline } from "../roofline/index.js";
import type { ScaleRow } from "../steps/scale.js";
import { restMs } from "../timing.js";

/** Where and with what a report was measured. */
export interface Machine {
  readonly date: string;
  readonly node: string;
  readonly platform: string;
  readonly processor: string;
  readonly threads: number;
  readonly memoryBytes: number;
  /** The device's own line. */
  readonly device: string;
}

/** A bar's line. */
export interface BarResult {
  readonly name: string;
  readonly required: string;
  readonly verdict: "ok" | "short" | "skipped";
  readonly outcome: Outcome;
}

/** All that a run found out; what `--json` writes and `--compare` reads. */
export interface Report {
  readonly machine: Machine;
  /** How each figure came about. */
  readonly method: string;
  readonly roofline: Roofline | null;
  readonly cases: readonly CaseResult[];
  readonly bars: readonly BarResult[];
  /** How a step's cost grows; what `--scale` measures. */
  readonly scale?: readonly ScaleRow[];
  /** Peers that took part, as they describe themselves, and those that did not, with the reason. */
  readonly peers: Readonly<Record<string, string>>;
}

/** What stands above every report. */
export const method: string = `Each figure is the median of rounds in which all sides run in turns with ${restMs} ms of rest between them, after three runs that are not counted; ± is half the distance of the quartiles. Every result is first checked against float64.`;

export function machine(device: string, threads: number): Machine {
  return {
    date: new Date().toISOString(),
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    processor: cpus()[0]?.model ?? "unknown",
    threads,
    memoryBytes: totalmem(),
    device,
  };
}
