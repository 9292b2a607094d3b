import { byteLength } from "./bpe.js";
import { TokenizerError } from "./error.js";
import { type Model, type Tokens, WordMemory } from "./model.js";

export interface WordPieceOptions {
  readonly vocab: Readonly<Record<string, number>>;
  readonly unk_token?: string | null;
  readonly continuing_subword_prefix?: string | null;
  readonly max_input_chars_per_word?: number | null;
}

/** The longest token that a word begins with, again and again; a word that cannot be spelled so is unknown as a whole. Rust's WordPiece. */
export class WordPiece implements Model {
  readonly vocab: ReadonlyMap<string, number>;
  readonly #prefix: string;
  readonly #longestWord: number;
  readonly #longestToken: number;
  readonly #unknown: string;
  readonly #memory = new WordMemory();

  constructor(options: WordPieceOptions) {
    this.vocab = new Map(Object.entries(options.vocab));
    this.#prefix = options.continuing_subword_prefix ?? "##";
    this.#longestWord = options.max_input_chars_per_word ?? 100;
    this.#unknown = options.unk_token ?? "[UNK]";
    let longest = 0;
    for (const token of this.vocab.keys()) longest = Math.max(longest, token.length);
    this.#longestToken = longest;
  }

  tokenize(word: string): Tokens {
    return this.#memory.remembering(word, (text) => this.#spelled(text) ?? unknownToken(this.vocab, this.#unknown, text));
  }

  #spelled(word: string): Tokens | null {
    if ([...word].length > this.#longestWord) return null;
    const [ids, starts, ends]: [number[], number[], number[]] = [[], [], []];
    let bytes = 0;
    for (let start = 0; start < word.length; ) {
      let end = Math.min(word.length, start + this.#longestToken);
      let id: number | undefined;
      for (; end > start; end--) {
        // A token does not end within a sign.
        if (end < word.length && (word.charCodeAt(end) & 0xfc00) === 0xdc00) continue;
        id = this.vocab.get((start > 0 ? this.#prefix : "") + word.slice(start, end));
        if (id !== undefined) break;
      }
      if (id === undefined) return null;
      ids.push(id);
      starts.push(bytes);
      bytes += byteLength(word.slice(start, end));
      ends.push(bytes);
      start = end;
    }
    return { ids, starts, ends };
  }
}

/** Words as they stand. Rust's WordLevel. */
export class WordLevel implements Model {
  readonly vocab: ReadonlyMap<string, number>;
  readonly #unknown: string;

  constructor({ vocab, unk_token: unknown }: WordPieceOptions) {
    this.vocab = new Map(Object.entries(vocab));
    this.#unknown = unknown ?? "<unk>";
  }

  tokenize(word: string): Tokens {
    const id = this.vocab.get(word);
    return id === undefined ? unknownToken(this.vocab, this.#unknown, word) : { ids: [id], starts: [0], ends: [byteLength(word)] };
  }
}

function unknownToken(vocab: ReadonlyMap<string, number>, token: string, word: string): Tokens {
  const id = vocab.get(token);
  if (id === undefined)
    throw new TokenizerError(
      `The token for the unknown ${JSON.stringify(token)} is not in the vocabulary. Fetch the checkpoint's tokenizer.json again.`,
    );
  return { ids: [id], starts: [0], ends: [byteLength(word)] };
}
