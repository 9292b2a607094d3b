/** The losses of a run that ended, null where they were not measured. */
export interface RunLosses {
  readonly heldOut: { readonly before: number; readonly after: number } | null;
  /** Of the first step and, as a mean, of the last ones; null where an earlier part of the run had the first. */
  readonly training: { readonly first: number; readonly last: number } | null;
}

/** The learning rate of a run and how it is written. */
export interface GivenRate {
  /** All that stands before the number, as `--lr ` or `--lr lora=`. */
  readonly flag: string;
  readonly rate: number;
}

/** Batches differ: a training loss has risen from this factor on, and fallen below the other. */
const risen = 1.1;
const fallen = 0.7;

/** What to say of a run that ended above where it began, and what to lower; null where it did not. */
export function riseNote({ heldOut, training }: RunLosses, { flag, rate }: GivenRate): string | null {
  const lower = `Lower the learning rate: ${flag}${Number((rate / 10).toPrecision(2))} in place of ${rate}`;
  const shown = (from: number, to: number): string => `ended above where it began (${from.toFixed(4)} → ${to.toFixed(4)})`;
  if (heldOut) {
    if (heldOut.after <= heldOut.before) return null;
    const hasLearned = training !== null && training.last < fallen * training.first;
    const where = `the held-out loss ${shown(heldOut.before, heldOut.after)}`;
    return hasLearned
      ? `${where} while the training loss fell (${training.first.toFixed(4)} → ${training.last.toFixed(4)}). The rows were learned by heart: train for fewer steps, or on more rows.`
      : `${where}. ${lower}.`;
  }
  return training && training.last > risen * training.first
    ? `the training loss ${shown(training.first, training.last)}. ${lower}, or add --warmup.`
    : null;
}

/**
 * What to say before the first step of a method that does not begin at the model's own loss: keys and values that are random stand in front of
 * every layer (Li & Liang 2021). SmolLM2-135M begins at 9.8 so, and at 3.4 with zeros, where its own loss is 3.0. Null for all others.
 */
export function startNote(method: string, options: Readonly<Record<string, unknown>>, initFlag: string): string | null {
  if (options["init"] === "zero" || !["prefix", "ptuning-v2"].includes(method)) return null;
  return `${method} begins with random keys and values in front of every layer, so its first losses are far above the model's own. ${initFlag}zero begins near it; else give it more steps.`;
}
