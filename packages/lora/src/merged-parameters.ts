import { Tensor } from "@lowrank/tensor";
import type { Adapter } from "./adapter.js";
import { AdapterError } from "./errors.js";
import { checkMergeable } from "./merge.js";
import type { AdaptableModule } from "./targeting/model.js";

/** A parameter where a module computes with it. */
interface Holder {
  /** The module's name in the model. */
  readonly place: string;
  readonly module: AdaptableModule;
  readonly key: string;
}

/**
 * The parameters that adapters change, by name, as they are with all of them merged in: lazy, f32, computed from the base's weights when they are
 * read. The model and the adapters stay as they are, so that a checkpoint can be written one tensor at a time (`saveModel(model, folder, { tensors })`)
 * beside a base in 16 bits or in blocks. A weight that modules share and of which an adapter changes one stands under that module's name, where
 * `merge` has to refuse: the head of a model whose embeddings are tied is then a matrix of its own. Several adapters add up, in their order.
 * Throws AdapterError for an adapter that is merged or cannot be, and where adapters are of several models.
 */
export function mergedParameters(adapters: readonly Adapter[]): ReadonlyMap<string, Tensor> {
  const [first] = adapters;
  if (!first) return new Map();
  for (const adapter of adapters) checkMergeable(adapter);
  const { model } = first;
  if (adapters.some((adapter) => adapter.model !== model))
    throw new AdapterError("The adapters are on several models. Load them on one base to merge them together.");
  const enabled = adapters.filter(({ isEnabled }) => isEnabled);
  // Modules then show their own weights, of which the adapters' changes are made.
  for (const adapter of [...enabled].reverse()) adapter.disable();
  const merged = new Map<Holder, { readonly base: Tensor; readonly value: Tensor; readonly restore: () => void }>();
  try {
    const holders = holdersIn(model.namedModules());
    const current = ({ module, key }: Holder): Tensor => Reflect.get(module, key) as Tensor; // a parameter was found there
    for (const adapter of adapters)
      for (const { place, attachment } of adapter.everything)
        for (const { weight, value, isWhole = false } of attachment.merge?.() ?? []) {
          const sharing = holders.filter((holder) => current(holder) === weight);
          const own = isWhole || sharing.length < 2 ? sharing : sharing.filter((holder) => holder.place === place);
          if (own.length === 0)
            throw new AdapterError(
              `${place}: ${sharing.length > 0 ? `${sharing.map((holder) => holder.place).join(" and ")} share the weight that the adapter changes` : "another adapter replaces what this one changes"}. Keep the adapters beside the model, or merge one of them.`,
              [place],
            );
          for (const holder of own) {
            const before = merged.get(holder);
            before?.restore();
            const base = before?.base ?? current(holder);
            // What a further adapter changes is what this one makes of the weight.
            merged.set(holder, { base, value, restore: holder.module.replace(holder.key, value) });
          }
        }
    return namedValues(holders, merged);
  } finally {
    for (const { restore } of merged.values()) restore();
    for (const adapter of enabled) adapter.enable();
  }
}

/** The parameters of modules, where they are. */
function holdersIn(modules: ReadonlyMap<string, AdaptableModule>): Holder[] {
  const holders: Holder[] = [];
  for (const [place, module] of modules)
    for (const [key, value] of Object.entries(module)) if (value instanceof Tensor) holders.push({ place, module, key });
  return holders;
}

/** What was merged by the names of parameters. A shared weight stands under the first one's name, and whoever then has another value under its own. */
function namedValues(
  holders: readonly Holder[],
  merged: ReadonlyMap<Holder, { readonly base: Tensor; readonly value: Tensor }>,
): Map<string, Tensor> {
  const values = new Map<string, Tensor>();
  const first = new Map<Tensor, Tensor>();
  for (const holder of holders) {
    const change = merged.get(holder);
    const base = change?.base ?? (Reflect.get(holder.module, holder.key) as Tensor);
    const value = change?.value ?? base;
    const shared = first.get(base) ?? base;
    if (!first.has(base)) first.set(base, value);
    if (value !== shared) values.set(holder.place === "" ? holder.key : `${holder.place}.${holder.key}`, value.cast("f32"));
  }
  return values;
}
