import { appendFile, readFile } from "node:fs/promises";
import { writeFileAtomic } from "@lowrank/tensor";
import type { StepMetrics } from "./trainer.js";

/**
 * metrics.jsonl of a run: appends one line a call. Lines of steps after `keptSteps` (a run that was killed after its last checkpoint)
 * and a torn last line go before the first is added; 0 starts the file anew.
 */
export async function metricsFile(path: string, keptSteps: number): Promise<(metrics: StepMetrics) => Promise<void>> {
  const old = keptSteps > 0 ? await readFile(path, "utf8").catch(() => "") : "";
  const kept = old.split("\n").filter((line) => {
    try {
      return (JSON.parse(line) as { step: number }).step <= keptSteps;
    } catch {
      return false;
    }
  });
  await writeFileAtomic(path, kept.map((line) => `${line}\n`).join(""));
  return (metrics) => appendFile(path, `${JSON.stringify(metrics)}\n`);
}
