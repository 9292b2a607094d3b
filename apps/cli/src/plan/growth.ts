import type { PlannedFor } from "@lowrank/tensor";
import type { CommandContext } from "../command.js";
import type { PlannedModel } from "./model.js";
import { outlinedStep, type outlineFlags, type StepOutline } from "./outline.js";

/** What fits some memory, where nothing is rematerialized: rows of the planned length, and tokens of the planned number of rows; 0 where not even one does. */
export interface Fitting {
  readonly rows: number;
  readonly length: number;
}

/** Planning that takes the processor longer is not done again. */
const thresholdMs = 10_000;

/**
 * How the peak of a step grows with its rows and their length. Both are linear, as attention's memory is and the logits' are no more than a part at a time: two further
 * plans say how steep. Null where planning takes long. `first`: the step as the flags have it, which took `tookMs` to plan.
 */
export async function growthOf(
  like: PlannedFor,
  model: PlannedModel,
  context: CommandContext<typeof outlineFlags>,
  { first, tookMs }: { readonly first: StepOutline; readonly tookMs: number },
): Promise<((bytes: number) => Fitting) | null> {
  if (tookMs > thresholdMs) return null;
  const { batch } = context.values;
  const { length, contextLength } = first;
  const silent = { ...context.output, note: () => {}, say: () => {} };
  const peak = async (rows: number, seq: number): Promise<number> => {
    const values = { ...context.values, batch: rows, seq, memory: undefined };
    return (await outlinedStep(like, model, { ...context, output: silent, values })).peakBytes;
  };
  // A budget may have made the first plan smaller than a free one.
  const [otherRows, otherLength] = [batch > 1 ? Math.ceil(batch / 2) : 2, length >= 4 ? Math.ceil(length / 2) : 2 * length];
  if (otherLength > contextLength) return null;
  const here = await peak(batch, length);
  const perRow = (here - (await peak(otherRows, length))) / (batch - otherRows);
  const perToken = (here - (await peak(batch, otherLength))) / (length - otherLength);
  return (bytes) => ({
    rows: Math.max(0, Math.floor(batch + (bytes - here) / perRow)),
    length: Math.max(0, Math.min(contextLength, Math.floor(length + (bytes - here) / perToken))),
  });
}
