/** A config.json as it was read, with the fields that the model needs checked and filled in. */
export interface ModelConfig {
  readonly model_type: string;
  readonly vocab_size: number;
  readonly tie_word_embeddings: boolean;
  readonly eos_token_id?: number | readonly number[] | null;
  readonly bos_token_id?: number | null;
  readonly [field: string]: unknown;
}

/** End tokens as a list: `eos_token_id` is a number, a list or null. */
export function endTokens(value: unknown): readonly number[] {
  const list = Array.isArray(value) ? value : [value];
  return list.filter((item): item is number => Number.isSafeInteger(item) && (item as number) >= 0);
}
