import { compile } from "@lowrank/tensor";
import type { Batch } from "../data/batches.js";
import { checkLabels, type DeviceBatch, tensorsOf, upload } from "./device-batch.js";
import { HeldOutLossError, TrainingError } from "./error.js";
import type { TrainableModel } from "./step.js";

/** Enqueues the loss over held-out batches and waits for it; made once, so that its plans are made once. */
export interface Evaluator {
  run(batches: Iterable<Batch>): Promise<{ readonly loss: number; readonly tokenCount: number }>;
  dispose(): void;
}

/** Which rows a batch holds, for a message. */
function rowsOf({ lines }: Batch, number: number): string {
  if (!lines || lines.length === 0) return `batch ${number}`;
  const shown = lines.slice(0, 4).join(", ");
  return `batch ${number} (line${lines.length > 1 ? "s" : ""} ${shown}${lines.length > 4 ? ` and ${lines.length - 4} more` : ""})`;
}

/**
 * The mean loss over the loss tokens of many batches, with dropout off. `run` rejects with RangeError for a label that is neither a token
 * nor -100, and with TrainingError for the first batch whose loss is not finite and where no batch has loss tokens.
 */
export function evaluator(model: TrainableModel): Evaluator {
  const forward = compile(({ ids, labels, packed }: DeviceBatch) => model.loss(ids, labels, { packed }));
  return {
    async run(batches) {
      model.train(false);
      let sum = 0;
      let tokenCount = 0;
      let number = 0;
      for (const batch of batches) {
        number++;
        if (model.vocabSize !== undefined) checkLabels(batch, model.vocabSize);
        if (batch.learnedTokenCount === 0) continue;
        const uploaded = upload(batch, model.device);
        const loss = forward(uploaded);
        const value = await loss.item();
        for (const t of [...tensorsOf(uploaded), loss]) t.dispose();
        if (!Number.isFinite(value))
          throw new HeldOutLossError(
            `The loss of ${rowsOf(batch, number)} is ${value}: activations overflow, as weights of the model or the adapter are too large. Evaluate an earlier checkpoint, or train again with a lower learning rate.`,
            value,
          );
        sum += value * batch.learnedTokenCount;
        tokenCount += batch.learnedTokenCount;
      }
      if (tokenCount === 0)
        throw new TrainingError("None of the rows to evaluate has loss tokens. Give rows with completions, or cut them at more tokens.", 0);
      return { loss: sum / tokenCount, tokenCount };
    },
    dispose: () => forward.dispose(),
  };
}
