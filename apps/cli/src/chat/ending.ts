import type { CausalLM, Tokenizer } from "@lowrank/models";

/** The tokens that end an answer. */
export interface Ending {
  /** Those that are no part of it. */
  readonly stops: readonly number[];
  /** Those that are words, a full stop for one, which belong to the text that they end. */
  readonly words: ReadonlySet<number>;
}

/** What ends a model's answers. */
export function endingOf(model: CausalLM, tokenizer: Tokenizer): Ending {
  const specials = new Set(tokenizer.specialTokens);
  const isWord = (token: number): boolean => token !== tokenizer.eosTokenId && !specials.has(tokenizer.token(token) ?? "");
  const words = new Set(model.stopTokens.filter(isWord));
  return { stops: model.stopTokens.filter((token) => !words.has(token)), words };
}
