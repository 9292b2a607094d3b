import { AdapterError } from "./errors.js";
import type { AdaptableModel } from "./targeting/model.js";

/** What changes a model's forward and can be taken out of it. */
export interface Switchable {
  readonly isMerged: boolean;
  enable(): void;
  disable(): void;
}

/** What is in effect on each model, in the order in which it came. */
const active = new WeakMap<AdaptableModel, Set<Switchable>>();

/** Records that an adapter changes what the model computes, or that it no longer does. */
export function setActive(model: AdaptableModel, adapter: Switchable, isActive: boolean): void {
  const known = active.get(model) ?? new Set();
  active.set(model, known);
  if (isActive) known.add(adapter);
  else known.delete(adapter);
}

/**
 * Runs `fn` on the plain base: every adapter of the model is out of the forward meanwhile, and back afterwards in the same order, also
 * when `fn` throws. Where `fn` returns a promise they come back once it has settled. Throws AdapterError when one is merged into the
 * weights. peft.PeftModel.disable_adapter.
 */
export function withoutAdapter<R>(model: AdaptableModel, fn: () => R): R {
  const adapters = [...(active.get(model) ?? [])];
  if (adapters.some(({ isMerged }) => isMerged))
    throw new AdapterError("An adapter is merged into the model's weights, so the base is not there to run. unmerge() it first.");
  for (const adapter of [...adapters].reverse()) adapter.disable();
  return finallyDo(fn, () => {
    for (const adapter of adapters) adapter.enable();
  });
}

/** Runs `fn`, then `after` in any case: at once, or where `fn` returns a promise when that has settled. */
export function finallyDo<R>(fn: () => R, after: () => void): R {
  let result: R;
  try {
    result = fn();
  } catch (error) {
    after();
    throw error;
  }
  // The promise that settles after `after` stands for the same value.
  if (result instanceof Promise) return result.finally(after) as R;
  after();
  return result;
}
