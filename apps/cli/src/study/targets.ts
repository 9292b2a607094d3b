import { type AdaptableModel, denseLayers, layerSuffixes } from "@lowrank/lora";
import { UsageError } from "../failure.js";

/** A set of targets as it was written, and as the library takes it. */
export interface TargetSet {
  readonly name: string;
  readonly targets: readonly string[] | "all-linear";
}

/** Where a family keeps several projections in one layer, or calls them by names that do not begin with the letter. */
const otherNames: Readonly<Record<string, readonly string[]>> = {
  q: ["q_proj", "c_attn", "query_key_value", "qkv_proj"],
  k: ["k_proj", "c_attn", "query_key_value", "qkv_proj"],
  v: ["v_proj", "c_attn", "query_key_value", "qkv_proj"],
  o: ["o_proj", "attn.c_proj", "out_proj", "dense"],
};

/**
 * "q,v;q,k,v,o;all-linear" as sets of a model's own layers; q, k, v and o are its projections, other names are layers' names. Throws
 * UsageError for a name that no layer has, and for two sets of the same layers.
 */
export function targetSets(text: string, model: AdaptableModel): TargetSet[] {
  const layers = [...denseLayers(model).keys()];
  const exists = (name: string): boolean => layers.some((layer) => layer === name || layer.endsWith(`.${name}`));
  const sets = text
    .split(";")
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .map((part): TargetSet => {
      if (part === "all-linear") return { name: part, targets: part };
      const targets = part.split(",").map((short) => {
        const name = short.trim();
        const found = [name, ...(otherNames[name] ?? [])].find(exists);
        if (found === undefined)
          throw new UsageError(
            `--targets-sets: the model has no layer for "${name}". Write q, k, v, o, all-linear, or names among ${layerSuffixes(model).join(", ")}.`,
          );
        return found;
      });
      return { name: part.replaceAll(" ", ""), targets: [...new Set(targets)] };
    });
  if (sets.length === 0) throw new UsageError("--targets-sets is empty. Write for instance --targets-sets 'q,v;all-linear'.");
  const seen = new Map<string, string>();
  for (const { name, targets } of sets) {
    const key = typeof targets === "string" ? targets : [...targets].sort().join();
    const other = seen.get(key);
    if (other !== undefined)
      throw new UsageError(`--targets-sets: "${other}" and "${name}" are the same layers of this model (${key}). Keep one of them.`);
    seen.set(key, name);
  }
  return sets;
}
