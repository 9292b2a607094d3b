import { realizeNow, type Tensor } from "@lowrank/tensor";
import type { Adapter } from "./adapter.js";
import { AdapterError, listed } from "./errors.js";
import { copyOf, type MergedWeight } from "./methods/method.js";

/**
 * Adds the adapter to the base's weights (LoRA: W = W0 + (alpha / r) B A) and takes it out of the forward, which from then on runs the
 * same kernels as the base. Explicit, and undone by `unmerge`. Throws AdapterError when the adapter is merged already, cannot be merged, or
 * when a weight is shared with another module (a tied embedding would change as well) or lies in blocks.
 */
export function merge(adapter: Adapter): void {
  checkMergeable(adapter);
  // Out of the forward first: modules then show their own weights.
  adapter.disable();
  let changes: MergedWeight[];
  try {
    changes = adapter.everything.flatMap(({ attachment }) => [...(attachment.merge?.() ?? [])]);
    refuseShared(adapter, changes);
    refusePacked(changes);
  } catch (error) {
    adapter.enable();
    throw error;
  }
  const merged = changes.map((change) => {
    const { weight } = change;
    // What 16 bits have rounded away cannot be taken back by arithmetic: such weights are kept as they were.
    const restore = weight.dtype === "f32" ? change.restore : undefined;
    return { weight, change, restore, copy: restore ? null : copyOf(weight).cast(weight.dtype) };
  });
  // Everything that reads the old weights comes before the first of them is written over.
  realizeNow(merged.flatMap(({ change, copy }) => (copy ? [copy] : (change.kept ?? []))));
  const steps = merged.map(({ weight, change, restore, copy }) => {
    weight.assign(change.value);
    return () => weight.assign(restore?.(weight) ?? (copy as Tensor)); // one of the two is there
  });
  realizeNow(merged.map(({ weight }) => weight));
  adapter.wayBack = {
    undo: () => {
      for (const step of steps) step();
      realizeNow(merged.map(({ weight }) => weight));
    },
    dispose: () => {
      for (const { change, copy } of merged) for (const t of copy ? [copy] : (change.kept ?? [])) t.dispose();
    },
  };
  adapter.disable(); // once more: now it is out of the forward because it is merged
}

/**
 * Takes a merged adapter out of the weights, to 1e-6 in f32 and exactly in 16 bits, and puts it back into the forward. The adapter's
 * parameters must be what they were at `merge`. Throws AdapterError when it is not merged.
 */
export function unmerge(adapter: Adapter): void {
  adapter.checkAlive();
  const { wayBack } = adapter;
  if (!wayBack) throw new AdapterError("The adapter is not merged, so there is nothing to take out. merge() it first.");
  wayBack.undo();
  wayBack.dispose();
  adapter.wayBack = null;
  adapter.enable();
}

/** Throws AdapterError for an adapter that is merged already or cannot be. */
export function checkMergeable(adapter: Adapter): void {
  adapter.checkAlive();
  if (adapter.isMerged) throw new AdapterError("The adapter is merged already; a second time would count it twice. unmerge() it first.");
  const { method } = adapter;
  const unmergeable = adapter.everything.filter(({ attachment }) => !attachment.merge).map(({ place }) => place);
  if (unmergeable.length > 0) {
    throw new AdapterError(
      `Adapters of method "${method.name}" cannot be merged: ${method.unmergeable ?? `they have no weight to merge into (${listed(unmergeable)}). Keep the adapter beside the model.`}`,
      unmergeable,
    );
  }
}

/** Throws AdapterError when a weight lies in blocks, which no sum fits into. */
function refusePacked(changes: readonly MergedWeight[]): void {
  const packing = changes.map(({ weight }) => weight.packing).find((each) => each !== null);
  if (packing)
    throw new AdapterError(
      `The base's weights lie in blocks (${packing.type}), which cannot hold what is added to them. Keep the adapter beside the model, write a merged checkpoint (\`lowrank merge\`, or mergedParameters with saveModel), take its weights out of their blocks (\`await nn.unpack(model)\`), or load the base with a dtype.`,
    );
}

/** Throws AdapterError when two modules compute with one of the weights that change. */
function refuseShared(adapter: Adapter, changes: readonly MergedWeight[]): void {
  const users = new Map<Tensor, string[]>();
  for (const [name, module] of adapter.model.namedModules()) {
    const { weight } = module as { readonly weight?: Tensor };
    if (weight) users.set(weight, [...(users.get(weight) ?? []), name]);
  }
  for (const { weight, isWhole } of changes) {
    if (isWhole) continue;
    const shared = users.get(weight) ?? [];
    if (shared.length > 1) {
      throw new AdapterError(
        `${shared.join(" and ")} share one weight, which merging would change for all of them. Keep the adapter unmerged, or leave the layer out of its targets.`,
        shared,
      );
    }
  }
}
