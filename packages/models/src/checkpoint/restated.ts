import type { ModelConfig } from "../config.js";
import type { FamilyConfig } from "../families/read.js";
import type { StoredTensors } from "./stored/stored.js";

/** The names of the field that says whether the embeddings are the head. */
export const tyingFields: readonly string[] = ["tie_word_embeddings", "tie_embedding"];

/** A config as the tensors beside it say that it is. */
export interface Restated {
  readonly read: FamilyConfig;
  /** In what it differs from the file. */
  readonly warnings: readonly string[];
}

/**
 * What the tensors say about the vocabulary and the head, where config.json says otherwise. A head that is there and differs from the embeddings is one
 * of its own, as in transformers; without one the embeddings are the head. Where embeddings and head agree on another number of tokens, the vocabulary
 * was resized. Changes `weights` where the embeddings are stored under the head's name.
 */
export async function asTensorsSay(read: FamilyConfig, path: string, { weights }: Pick<StoredTensors, "weights">): Promise<Restated> {
  const { vocabSize, width } = read.options;
  const { isTied } = read.options.head;
  const [embeddingName, headName] = [`${read.options.embedding.name}.weight`, `${read.options.head.name}.weight`];
  const head = weights.get(headName);
  if (isTied && head && !weights.has(embeddingName)) weights.set(embeddingName, head);
  const embedding = weights.get(embeddingName);
  if (!embedding) return { read, warnings: [] }; // which is told as missing
  const warnings: string[] = [];
  let told = read;
  if (isTied && head && head !== embedding && (await head.digest()) !== (await embedding.digest())) {
    warnings.push(
      `${path}: "tie_word_embeddings" is true, but ${headName} is there and differs from the embeddings: it is used as a head of its own.`,
    );
    told = restated(told, tyingFields, false, { head: { ...read.options.head, isTied: false } });
  } else if (!isTied && !head && !read.options.head.bias) {
    warnings.push(`${path}: "tie_word_embeddings" is false, but there is no ${headName}: the embeddings are used as the head.`);
    told = restated(told, tyingFields, true, { head: { ...read.options.head, isTied: true } });
  }
  const { shape } = embedding;
  const [rows = 0, columns] = shape;
  const headRows = told.options.head.isTied || !head ? rows : head.shape[0];
  if (shape.length === 2 && columns === width && rows > 0 && rows !== vocabSize && headRows === rows) {
    warnings.push(`${path}: "vocab_size" is ${vocabSize}, but there are embeddings of ${rows} tokens: these are used.`);
    told = restated(told, ["vocab_size"], rows, { vocabSize: rows });
  }
  return { read: told, warnings };
}

/** A config with a field changed wherever it stands, and the decoder's options with it. */
function restated(read: FamilyConfig, names: readonly string[], value: unknown, options: Partial<FamilyConfig["options"]>): FamilyConfig {
  return { ...read, config: withField(read.config, names, value), options: { ...read.options, ...options } };
}

/** A config with a field that has one of some names changed wherever it stands. */
export function withField(config: ModelConfig, names: readonly string[], value: unknown): ModelConfig {
  const changed = (fields: Readonly<Record<string, unknown>>): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(fields).map(([name, old]) => [
        name,
        names.includes(name) ? value : name === "text_config" && typeof old === "object" && old !== null ? changed({ ...old }) : old,
      ]),
    );
  return changed({ ...config }) as unknown as ModelConfig;
}
