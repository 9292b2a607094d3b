import { appendFile, readFile } from "node:fs/promises";
import { writeFileAtomic } from "@lowrank/tensor";
import { type ChangeNote, type MetricsLine, metricsLines } from "./metrics.js";
import type { StepMetrics } from "./run.js";

/** A line of metrics.jsonl about the held-out rows; `step` 0 is before training. */
export interface EvaluationMetrics {
  readonly step: number;
  readonly evalLoss: number;
}

/**
 * metrics.jsonl of a run: appends one line a call, with the time of day as `time` (ISO 8601, UTC). Lines of steps after `keptSteps` (a run that was killed after its last checkpoint)
 * and those that are damaged go before the first is added; 0 starts the file anew. Rejects with the operating system's error, and leaves the file as it is, where what is
 * there cannot be read.
 */
export async function metricsFile(
  path: string,
  keptSteps: number,
): Promise<(metrics: StepMetrics | EvaluationMetrics | ChangeNote) => Promise<void>> {
  const old = keptSteps > 0 ? await readMetrics(path) : [];
  const kept = old.filter(({ step }) => step <= keptSteps);
  await writeFileAtomic(path, kept.map(({ text }) => `${text}\n`).join(""));
  return (metrics) => appendFile(path, `${JSON.stringify({ ...metrics, time: new Date().toISOString() })}\n`);
}

/** The valid lines of a metrics.jsonl; none where there is no file. Rejects with the operating system's error where it cannot be read. */
export async function readMetrics(path: string): Promise<MetricsLine[]> {
  try {
    return metricsLines(await readFile(path, "utf8"));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}
