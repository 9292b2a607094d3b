import { CheckpointError, type Json, largest } from "@lowrank/tensor";
import { type AddedToken, AddedTokens } from "./added-tokens.js";
import { Bpe, type BpeOptions } from "./bpe.js";
import { signsOf } from "./byte-alphabet.js";
import { type Decoder, decoderOf, tokenBytesOf } from "./decoders.js";
import { TokenizerError } from "./error.js";
import { type Model, type Tokens, WordMemory } from "./model.js";
import { normalizerOf } from "./normalizers.js";
import { type Piece, unitsOfBytes } from "./piece.js";
import { type Encoded, type PostProcessor, postProcessorOf } from "./post-processors.js";
import { inBytes, type Splitting, splittingOf } from "./pre-tokenizers.js";
import { Unigram, type UnigramOptions } from "./unigram.js";
import { WordLevel, WordPiece, type WordPieceOptions } from "./wordpiece.js";

/** Text to tokens and back as the Rust tokenizers' pipeline does: added tokens, normalizer, pre-tokenizer, model, post-processor, decoder. */
export class Pipeline {
  readonly model: Model;
  readonly added: AddedTokens;
  readonly #splitting: Splitting;
  readonly #postProcessor: PostProcessor;
  readonly #decoder: Decoder | null;
  readonly #bytesOf: ((token: string) => Uint8Array) | null;
  readonly #memory = new WordMemory();
  readonly #tokens: (string | undefined)[] = [];
  readonly #special: ReadonlySet<string>;

  /**
   * From the contents of tokenizer.json; `declared` are tokens that other files add or describe otherwise.
   * Throws CheckpointError where a part is none that is known here as Rust has it.
   */
  constructor(json: Json, declared: (known: Known) => readonly AddedToken[], path: string) {
    this.model = modelOf(json["model"] as Json, path);
    const normalize = normalizerOf(json["normalizer"] as Json | null, path);
    const tokens = new Map<string, AddedToken>();
    const add = (token: AddedToken): void => {
      if (token.content !== "") tokens.set(token.content, token);
    };
    const idOf = (content: string): number | undefined => tokens.get(content)?.id ?? this.model.vocab.get(content);
    for (const token of (json["added_tokens"] ?? []) as readonly Json[])
      add(addedToken(token, idOf(String(token["content"])) ?? Number(token["id"])));
    for (const token of declared({ tokens, idOf, nextId: () => this.#largest(tokens) + 1 })) add(token);
    this.added = new AddedTokens([...tokens.values()], normalize);
    this.#special = new Set([...tokens.values()].filter(({ special }) => special).map(({ content }) => content));
    this.#splitting = splittingOf(json["pre_tokenizer"] as Json | null, path);
    this.#postProcessor = postProcessorOf(json["post_processor"] as Json | null, path);
    this.#decoder = decoderOf(json["decoder"] as Json | null, path);
    this.#bytesOf = tokenBytesOf(json["decoder"] as Json | null, path);
    for (const [token, id] of this.model.vocab) this.#tokens[id] = token;
  }

  /** One more than the largest id, those that the post-processor puts around texts included, which no vocabulary needs to have. */
  get size(): number {
    const { before, after } = this.#postProcessor;
    return largest([...before, ...after], this.#largest(this.added.byContent)) + 1;
  }

  /** What is put before a text and after it. */
  get around(): { readonly before: readonly number[]; readonly after: readonly number[] } {
    return this.#postProcessor;
  }

  #largest(tokens: ReadonlyMap<string, AddedToken>): number {
    let largest = -1;
    for (const id of this.model.vocab.values()) if (id > largest) largest = id;
    for (const { id } of tokens.values()) if (id > largest) largest = id;
    return largest;
  }

  tokenId(token: string): number | null {
    return this.added.byContent.get(token)?.id ?? this.model.vocab.get(token) ?? null;
  }

  token(id: number): string | null {
    return this.added.byId.get(id)?.content ?? this.#tokens[id] ?? null;
  }

  /** Ids of a text; `before` and `after` it what the post-processor puts in, where that is asked for. */
  encode(text: string, addSpecialTokens: boolean): number[] {
    const ids: number[] = addSpecialTokens ? [...this.#postProcessor.before] : [];
    for (const { piece, token } of this.added.extract(wellFormed(text))) {
      if (token) ids.push(token.id);
      else for (const word of this.#splitting.words(piece)) for (const id of this.#tokensOf(word).ids) ids.push(id);
    }
    if (addSpecialTokens) for (const id of this.#postProcessor.after) ids.push(id);
    return ids;
  }

  /** As `encode`, with the part of the text that each token stands for; [0, 0] for those that were put in. */
  encodeWithOffsets(text: string, addSpecialTokens: boolean): Encoded {
    const encoded: Encoded = { ids: [], starts: [], ends: [] };
    /** Texts of added tokens by place: white space that they took is theirs. */
    const texts = new Map<number, string>();
    for (const { piece, token } of this.added.extract(wellFormed(text))) {
      if (token) {
        texts.set(encoded.ids.length, piece.text);
        push(encoded, token.id, piece.start(0), piece.end(piece.text.length - 1));
      } else for (const word of this.#splitting.words(piece)) this.#place(word, this.#tokensOf(word), encoded);
    }
    const { before, after, trim } = this.#postProcessor;
    trim?.(encoded, text, (place) => texts.get(place) ?? this.#tokens[encoded.ids[place] as number] ?? "");
    if (!addSpecialTokens) return encoded;
    const zeros = (ids: readonly number[]): number[] => ids.map(() => 0);
    return {
      ids: [...before, ...encoded.ids, ...after],
      starts: [...zeros(before), ...encoded.starts, ...zeros(after)],
      ends: [...zeros(before), ...encoded.ends, ...zeros(after)],
    };
  }

  #tokensOf(word: Piece): Tokens {
    if (!this.#splitting.isInBytes) return this.model.tokenize(word.text);
    return this.#memory.remembering(word.text, (text) => this.model.tokenize(signsOf(text)));
  }

  /** Appends a word's tokens, from bytes of the word to units of the text. */
  #place(word: Piece, { ids, starts, ends }: Tokens, encoded: Encoded): void {
    const piece = this.#splitting.isInBytes ? inBytes(word) : word;
    const units = unitsOfBytes(piece.text);
    const unitOf = (byte: number): number =>
      Math.min(piece.text.length - 1, units ? (units[Math.min(byte, units.length - 1)] as number) : byte);
    for (let i = 0; i < ids.length; i++)
      push(encoded, ids[i] as number, piece.start(unitOf(starts[i] as number)), piece.end(unitOf((ends[i] as number) - 1)));
  }

  /** The bytes of the text that an id writes behind others; null for special ones and where no token has it. */
  tokenBytes(id: number): Uint8Array | null {
    const token = this.added.written(id) ?? this.#tokens[id];
    if (token === undefined || this.#special.has(token)) return null;
    if (!this.#bytesOf)
      throw new TokenizerError("The tokenizer writes a token in other ways in other places, so that texts of it cannot be held to a form.");
    return this.#bytesOf(token);
  }

  /** The text of ids; those that no token has are left out. */
  decode(ids: Iterable<number>, skipSpecialTokens: boolean): string {
    const tokens: string[] = [];
    for (const id of ids) {
      const token = this.added.written(id) ?? this.#tokens[id];
      if (token !== undefined && !(skipSpecialTokens && this.#special.has(token))) tokens.push(token);
    }
    return this.#decoder ? this.#decoder(tokens).join("") : tokens.join(" ");
  }
}

/** What is known while further tokens are declared. */
export interface Known {
  readonly tokens: ReadonlyMap<string, AddedToken>;
  readonly idOf: (content: string) => number | undefined;
  readonly nextId: () => number;
}

/** An added token as a file describes it. */
export function addedToken({ content, single_word: singleWord, lstrip, rstrip, normalized, special }: Json, id: number): AddedToken {
  const isSpecial = special === true;
  return {
    id,
    content: String(content),
    singleWord: singleWord === true,
    lstrip: lstrip === true,
    rstrip: rstrip === true,
    normalized: typeof normalized === "boolean" ? normalized : !isSpecial,
    special: isSpecial,
  };
}

function push({ ids, starts, ends }: Encoded, id: number, start: number, end: number): void {
  ids.push(id);
  starts.push(start);
  ends.push(end);
}

function modelOf(model: Json, path: string): Model {
  const type = model["type"] ?? (Array.isArray(model["vocab"]) ? "Unigram" : Object.hasOwn(model, "merges") ? "BPE" : "WordPiece");
  switch (type) {
    case "BPE":
      return new Bpe(model as unknown as BpeOptions, path);
    case "Unigram":
      return new Unigram(model as unknown as UnigramOptions);
    case "WordPiece":
      return new WordPiece(model as unknown as WordPieceOptions);
    case "WordLevel":
      return new WordLevel(model as unknown as WordPieceOptions);
    default:
      throw new CheckpointError(
        `${path}: "model.type" is ${JSON.stringify(type)}, which is not known. Use a checkpoint with another tokenizer.`,
        path,
      );
  }
}

/** The text with a sign for what is half of a pair: Rust's texts have no such halves. */
function wellFormed(text: string): string {
  return /[\ud800-\udfff]/.test(text)
    ? text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd")
    : text;
}
