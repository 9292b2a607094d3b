/** Tokens of a word: ids, and where each starts and ends in the word's bytes in UTF-8. */
export interface Tokens {
  readonly ids: readonly number[];
  readonly starts: readonly number[];
  readonly ends: readonly number[];
}

/** What makes tokens of words. */
export interface Model {
  /** Ids by token. */
  readonly vocab: ReadonlyMap<string, number>;
  /** Throws TokenizerError where the word is unknown and the model has no token for that. */
  tokenize(word: string): Tokens;
}

export const noTokens: Tokens = { ids: [], starts: [], ends: [] };

/** Words that are remembered, and how long they may be. */
const most = { words: 65536, length: 256 };

/** Words that were made tokens of, up to a number of them. */
export class WordMemory {
  readonly #known = new Map<string, Tokens>();

  remembering(word: string, make: (word: string) => Tokens): Tokens {
    const before = this.#known.get(word);
    if (before) return before;
    const tokens = make(word);
    if (this.#known.size === most.words) this.#known.clear();
    if (word.length < most.length) this.#known.set(word, tokens);
    return tokens;
  }
}
