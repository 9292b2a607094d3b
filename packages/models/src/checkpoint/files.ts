import * as z from "zod/mini";
import { checked } from "../schema.js";

/** What a folder has beside its weights that a model is read from; all but the first may be absent. */
export const describingFiles = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
] as const;

/** A folder beside them with further chat templates, which a model may have. */
export const templateFolder = "additional_chat_templates";

/** Where a folder's weights are: in some files, or in those that an index names. */
export type WeightFiles = { readonly kind: "files"; readonly names: readonly string[] } | { readonly kind: "index"; readonly name: string };

/** No weights of a model, or the same ones in another layout. */
const otherFiles = /^(adapter_model|training-state|optimizer|consolidated)\b/;

/**
 * Which of a folder's files hold its weights: `model.safetensors`, else those that `model.safetensors.index.json` or the only index of another name
 * lists, else every safetensors file there is. Null where there is none.
 */
export function weightFiles(names: Iterable<string>): WeightFiles | null {
  const all = new Set(names);
  if (all.has("model.safetensors")) return { kind: "files", names: ["model.safetensors"] };
  const indices = [...all].filter((name) => name.endsWith(".safetensors.index.json"));
  const index = indices.find((name) => name === "model.safetensors.index.json") ?? (indices.length === 1 ? indices[0] : undefined);
  if (index !== undefined) return { kind: "index", name: index };
  const files = [...all].filter((name) => name.endsWith(".safetensors"));
  const own = files.filter((name) => !otherFiles.test(name));
  const found = own.length > 0 ? own : files.filter((name) => name.startsWith("consolidated"));
  return found.length > 0 ? { kind: "files", names: found.sort() } : null;
}

/** What is read of an index: the file of each tensor, beside the index itself. */
const indexSchema = z.object({
  weight_map: z.custom<Readonly<Record<string, string>>>(
    (value) =>
      typeof value === "object" &&
      value !== null &&
      Object.values(value).every((name) => typeof name === "string" && /^[^/\\\0]+$/.test(name) && !/^\.\.?$/.test(name)),
    { error: "does not map tensor names to file names" },
  ),
});

/** The tensors of each file that an index names, the files sorted. Throws CheckpointError for what is not an index. */
export function shardsOf(index: unknown, path: string): ReadonlyMap<string, readonly string[]> {
  const { weight_map: map } = checked(indexSchema, index, path);
  const shards = new Map<string, string[]>();
  for (const [name, shard] of Object.entries(map)) {
    const names = shards.get(shard);
    if (names) names.push(name);
    else shards.set(shard, [name]);
  }
  return new Map([...shards].sort(([a], [b]) => (a < b ? -1 : 1)));
}
