import type { GenerateOptions } from "../generate/generate.js";
import { TokenizerError } from "../tokenizer/pipeline/error.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";
import { Automaton, type State } from "./automaton.js";
import { grammarOf } from "./schema.js";
import { TokenTrie } from "./token-trie.js";

/** Masks that are kept: 19 kB each with 151,936 tokens. */
const maxMasks = 1000;

/** A text of tokens so far, and where it stands. */
interface Text {
  readonly tokens: number[];
  state: State;
}

/**
 * Holds generated texts to JSON that fits a schema, through any way of choosing tokens:
 *
 *     const rules = new SchemaConstraint(tokenizer, schema, { stopTokens: model.stopTokens });
 *     const [ids] = await generator.generate([prompt], { maxNewTokens: 256, ...rules.options });
 *
 * Where the tokens run out before the JSON is complete, it is cut: `isComplete` says so.
 */
export class SchemaConstraint {
  readonly #automaton: Automaton;
  readonly #trie: TokenTrie;
  readonly #stops: readonly number[];
  readonly #masks = new Map<State, Uint32Array>();
  readonly #texts = new Map<number, Text>();

  /**
   * `schema` is a JSON schema: `grammarOf` says which. Throws SchemaError where it is none of these, or no value fits it, and TokenizerError where
   * the tokenizer's tokens are no texts to be put one behind the other.
   */
  constructor(tokenizer: Tokenizer, schema: unknown, { stopTokens }: { readonly stopTokens: readonly number[] }) {
    this.#trie = new TokenTrie(Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.tokenBytes(id)));
    this.#stops = stopTokens;
    this.#automaton = new Automaton(grammarOf(schema), this.#trie.longest);
  }

  /** What `generate` takes. Rejects with TokenizerError where no token fits what is there. */
  get options(): Required<Pick<GenerateOptions, "allowedTokens" | "isEnd">> {
    return {
      allowedTokens: (row, tokens) => this.allowedTokens(row, tokens),
      isEnd: (row, tokens) => this.#stateOf(row, tokens).isEnd,
    };
  }

  /** Bits of the tokens that may come after the tokens of a row, end tokens where the JSON is complete. */
  allowedTokens(row: number, tokens: readonly number[]): Uint32Array {
    const { near } = this.#stateOf(row, tokens);
    const known = this.#masks.get(near);
    if (known) return known;
    const mask = this.#trie.mask(this.#automaton, near);
    if (near.accepts) for (const stop of this.#stops) mask[stop >> 5] = (mask[stop >> 5] ?? 0) | (1 << (stop & 31));
    if (mask.every((bits) => bits === 0))
      throw new TokenizerError(
        near.accepts
          ? "The JSON is complete, and the model has no end token to say so."
          : "No token of the vocabulary goes on with the JSON that the schema asks for. Use a tokenizer that has all bytes.",
      );
    // The oldest one goes.
    for (const old of this.#masks.keys()) if (this.#masks.size >= maxMasks) this.#masks.delete(old);
    this.#masks.set(near, mask);
    return mask;
  }

  /** Whether the tokens of a row are JSON that fits, as it is. */
  isComplete(row: number, tokens: readonly number[]): boolean {
    return this.#stateOf(row, tokens).accepts;
  }

  /** Where a row stands: from where it was when it was asked for before, as far as that is the same text. */
  #stateOf(row: number, tokens: readonly number[]): State {
    let text = this.#texts.get(row);
    if (!text || text.tokens.length > tokens.length || text.tokens.some((token, i) => token !== tokens[i])) {
      text = { tokens: [], state: this.#automaton.start };
      this.#texts.set(row, text);
    }
    for (const token of tokens.slice(text.tokens.length)) {
      let state: State | null = text.state;
      for (const byte of this.#trie.bytes[token] ?? []) state = state && this.#automaton.advance(state, byte);
      if (!state || !this.#trie.bytes[token]) throw new TokenizerError(`Token ${token} does not fit the JSON that the schema asks for.`);
      text.tokens.push(token);
      text.state = state;
    }
    return text.state;
  }
}
