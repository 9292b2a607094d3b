import { CheckpointError } from "@lowrank/tensor";
import { utf8Length } from "../unicode/properties.js";
import { TokenizerError } from "./error.js";
import { Heap } from "./heap.js";
import { type Model, noTokens, type Tokens, WordMemory } from "./model.js";
import { PairTable } from "./pair-table.js";

export interface BpeOptions {
  readonly vocab: Readonly<Record<string, number>>;
  readonly merges: readonly (string | readonly [string, string])[];
  readonly unk_token?: string | null;
  readonly continuing_subword_prefix?: string | null;
  readonly end_of_word_suffix?: string | null;
  readonly fuse_unk?: boolean | null;
  readonly byte_fallback?: boolean | null;
  readonly ignore_merges?: boolean | null;
}

/** What SentencePiece writes for a space. */
const space = "▁";
/** Where a merge is in a word, beside its rank in one number. */
const places = 2 ** 27;

/** Byte-pair encoding (Sennrich et al. 2016): merges neighbours by rank, the leftmost first. Rust's BPE without dropout. */
export class Bpe implements Model {
  readonly vocab: ReadonlyMap<string, number>;
  readonly #options: BpeOptions;
  readonly #prefix: string;
  readonly #suffix: string;
  /** Ranks by pairs of ids, and the id that each rank makes. */
  readonly #ranks: PairTable;
  readonly #made: Int32Array;
  readonly #unknown: number | null;
  readonly #memory = new WordMemory();
  readonly #bytes: readonly (number | undefined)[];
  /** Whether merging ends at each space, so that words can be told apart and remembered. */
  readonly #endsAtSpaces: boolean;

  /** Throws CheckpointError where a merge is of tokens that the vocabulary lacks. */
  constructor(options: BpeOptions, path: string) {
    this.#options = options;
    const vocab = new Map<string, number>();
    // No list of pairs in between: there are a quarter of a million.
    for (const token of Object.keys(options.vocab)) vocab.set(token, options.vocab[token] as number); // a key's
    this.vocab = vocab;
    this.#prefix = options.continuing_subword_prefix ?? "";
    this.#suffix = options.end_of_word_suffix ?? "";
    this.#ranks = new PairTable(options.merges.length);
    this.#made = new Int32Array(options.merges.length);
    const id = (token: string): number => {
      const found = vocab.get(token);
      if (found === undefined)
        throw new CheckpointError(
          `${path}: "model.merges" makes the token ${JSON.stringify(token)}, which "model.vocab" lacks. Fetch the checkpoint again.`,
          path,
        );
      return found;
    };
    let joinsSpace = false;
    for (let rank = 0; rank < options.merges.length; rank++) {
      const merge = options.merges[rank] as string | readonly [string, string]; // below the length
      const cut = typeof merge === "string" ? merge.indexOf(" ") : 0;
      const [first, second] = typeof merge === "string" ? [merge.slice(0, cut), merge.slice(cut + 1)] : merge;
      const whole = first + second.slice(this.#prefix.length);
      // Of a pair that is there twice the later rank counts.
      this.#made[rank] = id(whole);
      this.#ranks.set(id(first), id(second), rank);
      joinsSpace ||= whole.includes(space) && /[^▁]▁/.test(whole);
    }
    this.#unknown = options.unk_token == null ? null : (this.vocab.get(options.unk_token) ?? null);
    this.#bytes = Array.from({ length: 256 }, (_, byte) => this.vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`));
    this.#endsAtSpaces = !joinsSpace && !options.ignore_merges && this.#prefix === "" && this.#suffix === "" && this.vocab.has(space);
  }

  tokenize(word: string): Tokens {
    if (word === "") return noTokens;
    if (this.#options.ignore_merges) {
      const id = this.vocab.get(word);
      if (id !== undefined) return { ids: [id], starts: [0], ends: [byteLength(word)] };
    }
    if (!this.#endsAtSpaces || word.length < 8) return this.#memory.remembering(word, (text) => this.#merge(text));
    return this.#byWords(word);
  }

  /** A long text word by word, spaces before each: the same tokens, of words that are remembered. */
  #byWords(text: string): Tokens {
    const [ids, starts, ends]: [number[], number[], number[]] = [[], [], []];
    let bytes = 0;
    for (let from = 0; from < text.length; ) {
      let to = from;
      while (to < text.length && text[to] === space) to++;
      while (to < text.length && text[to] !== space) to++;
      const word = text.slice(from, to);
      const tokens = this.#memory.remembering(word, (part) => this.#merge(part));
      for (let i = 0; i < tokens.ids.length; i++) {
        ids.push(tokens.ids[i] as number);
        starts.push(bytes + (tokens.starts[i] as number));
        ends.push(bytes + (tokens.ends[i] as number));
      }
      // Signs that no token is of count for nothing, as in Rust.
      bytes += tokens.ends.at(-1) ?? 0;
      from = to;
    }
    return { ids, starts, ends };
  }

  #merge(word: string): Tokens {
    const { ids, lengths } = this.#symbols(word);
    const count = ids.length;
    const previous = Int32Array.from({ length: count }, (_, i) => i - 1);
    const next = Int32Array.from({ length: count }, (_, i) => (i + 1 < count ? i + 1 : -1));
    const heap = new Heap();
    const offer = (at: number, after: number): void => {
      const rank = this.#ranks.get(ids[at] as number, ids[after] as number);
      if (rank >= 0) heap.push(rank * places + at);
    };
    for (let i = 0; i + 1 < count; i++) offer(i, i + 1);
    while (heap.size > 0) {
      const item = heap.pop();
      const rank = Math.floor(item / places);
      const at = item - rank * places;
      const after = next[at] as number;
      if (lengths[at] === 0 || after < 0) continue;
      // What was merged otherwise since is let go.
      const now = this.#ranks.get(ids[at] as number, ids[after] as number);
      if (now < 0 || this.#made[now] !== this.#made[rank]) continue;
      ids[at] = this.#made[rank] as number;
      lengths[at] = (lengths[at] as number) + (lengths[after] as number);
      lengths[after] = 0;
      const beyond = next[after] as number;
      next[at] = beyond;
      if (beyond >= 0) previous[beyond] = at;
      if ((previous[at] as number) >= 0) offer(previous[at] as number, at);
      if (beyond >= 0) offer(at, beyond);
    }
    const tokens: { ids: number[]; starts: number[]; ends: number[] } = { ids: [], starts: [], ends: [] };
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      if (lengths[i] === 0) continue;
      tokens.ids.push(ids[i] as number);
      tokens.starts.push(bytes);
      bytes += lengths[i] as number;
      tokens.ends.push(bytes);
    }
    return tokens;
  }

  /** The tokens that a word begins as, a sign each, and the bytes of each. */
  #symbols(word: string): { readonly ids: number[]; readonly lengths: number[] } {
    const [ids, lengths]: [number[], number[]] = [[], []];
    /** Bytes that wait to be one unknown token; 0 where none do. */
    let unknownBytes = 0;
    const add = (id: number, length: number): void => {
      ids.push(id);
      lengths.push(length);
    };
    const flush = (): void => {
      if (unknownBytes > 0 && this.#unknown !== null) add(this.#unknown, unknownBytes);
      unknownBytes = 0;
    };
    for (let at = 0; at < word.length; ) {
      const code = word.codePointAt(at) as number; // within the word
      const end = at + (code > 0xffff ? 2 : 1);
      let sign = word.slice(at, end);
      if (at > 0) sign = this.#prefix + sign;
      if (end === word.length) sign += this.#suffix;
      at = end;
      const id = this.vocab.get(sign);
      if (id !== undefined) {
        flush();
        add(id, utf8Length(code));
        continue;
      }
      if (this.#options.byte_fallback) {
        const bytes = [...new TextEncoder().encode(sign)].map((byte) => this.#bytes[byte]);
        if (bytes.every((byte) => byte !== undefined)) {
          for (const byte of bytes) add(byte, 1);
          continue;
        }
      }
      if (this.#options.unk_token == null) continue;
      if (this.#unknown === null)
        throw new TokenizerError(
          `The token for the unknown ${JSON.stringify(this.#options.unk_token)} is not in the vocabulary. Fetch the checkpoint's tokenizer.json again.`,
        );
      if (!this.#options.fuse_unk) flush();
      unknownBytes += utf8Length(code);
    }
    flush();
    return { ids, lengths };
  }
}

export function byteLength(text: string): number {
  let bytes = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.codePointAt(i) as number; // within the text
    bytes += utf8Length(code);
    if (code > 0xffff) i++;
  }
  return bytes;
}
