import { appendFile, readFile } from "node:fs/promises";
import { writeFileAtomic } from "@lowrank/tensor";
import { type ChangeNote, metricsLines } from "./metrics.js";
import type { StepMetrics } from "./trainer.js";

/** A line of metrics.jsonl about the held-out rows; `step` 0 is before training. */
export interface EvaluationMetrics {
  readonly step: number;
  readonly evalLoss: number;
}

/**
 * metrics.jsonl of a run: appends one line a call, with the time of day as `time` (ISO 8601, UTC). Lines of steps after `keptSteps` (a run that was killed after its last checkpoint)
 * and those that are damaged go before the first is added; 0 starts the file anew.
 */
export async function metricsFile(
  path: string,
  keptSteps: number,
): Promise<(metrics: StepMetrics | EvaluationMetrics | ChangeNote) => Promise<void>> {
  const old = keptSteps > 0 ? await readFile(path, "utf8").catch(() => "") : "";
  const kept = metricsLines(old).filter(({ step }) => step <= keptSteps);
  await writeFileAtomic(path, kept.map(({ text }) => `${text}\n`).join(""));
  return (metrics) => appendFile(path, `${JSON.stringify({ ...metrics, time: new Date().toISOString() })}\n`);
}
