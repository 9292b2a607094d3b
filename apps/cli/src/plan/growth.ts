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
 * How the peak of a step grows with its tokens, of more rows or of longer ones. It is linear, as attention's memory is and the logits' are no more than a part
 * at a time, and to a thousandth the same for both: one further plan says how steep. Null where planning takes long. `first`: the step as the flags have it,
 * which took `tookMs` to plan, with nothing rematerialized where it `isFree`.
 */
export async function growthOf(
  like: PlannedFor,
  model: PlannedModel,
  context: CommandContext<typeof outlineFlags>,
  { first, isFree, tookMs }: { readonly first: StepOutline; readonly isFree: boolean; readonly tookMs: number },
): Promise<((bytes: number) => Fitting) | null> {
  if (tookMs > thresholdMs) return null;
  const { batch } = context.values;
  const { length, contextLength, virtualLength } = first;
  const otherLength = length >= 4 ? Math.ceil(length / 2) : 2 * length;
  if (otherLength > contextLength) return null;
  const silent = { ...context.output, note: () => {}, say: () => {} };
  const values = { ...context.values, memory: undefined };
  // A budget may have made the first plan smaller than a free one.
  const free = isFree ? first : await outlinedStep(like, model, { ...context, output: silent, values });
  const here = free.peakBytes;
  const perToken = (here - (await free.peakOf(batch, otherLength))) / (length - otherLength);
  const perRow = (perToken / batch) * (length + virtualLength);
  return (bytes) => ({
    rows: Math.max(0, Math.floor(batch + (bytes - here) / perRow)),
    length: Math.max(0, Math.min(contextLength, Math.floor(length + (bytes - here) / perToken))),
  });
}
