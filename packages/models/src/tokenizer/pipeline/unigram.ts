import { byteLength } from "./bpe.js";
import { TokenizerError } from "./error.js";
import { type Model, noTokens, type Tokens, WordMemory } from "./model.js";
import { PairTable } from "./pair-table.js";

export interface UnigramOptions {
  readonly vocab: readonly (readonly [token: string, score: number])[];
  readonly unk_id?: number | null;
  readonly byte_fallback?: boolean | null;
}

/** How much less likely than the least likely token an unknown sign is. */
const unknownPenalty = 10;

/** The unigram language model (Kudo 2018): the tokens of the greatest probability, by Viterbi's algorithm. Rust's Unigram. */
export class Unigram implements Model {
  readonly vocab: ReadonlyMap<string, number>;
  readonly #scores: Float64Array;
  readonly #unknownScore: number;
  readonly #unknown: number | null;
  /** Nodes of the tree of tokens by node and UTF-16 unit, and the token that ends at each. */
  readonly #tree: PairTable;
  readonly #tokenAt: number[] = [-1];
  readonly #bytes: readonly (number | undefined)[] | null;
  readonly #memory = new WordMemory();

  constructor({ vocab, unk_id: unknown = null, byte_fallback: fallsBack = false }: UnigramOptions) {
    this.vocab = new Map(vocab.map(([token], id) => [token, id]));
    this.#scores = Float64Array.from(vocab, ([, score]) => score);
    this.#unknownScore = this.#scores.reduce((least, score) => Math.min(least, score), Number.POSITIVE_INFINITY) - unknownPenalty;
    this.#unknown = unknown;
    this.#tree = new PairTable(vocab.length * 3);
    for (const [token, id] of this.vocab) {
      let node = 0;
      for (let i = 0; i < token.length; i++) {
        const unit = token.charCodeAt(i);
        let child = this.#tree.get(node, unit);
        if (child < 0) {
          child = this.#tokenAt.push(-1) - 1;
          this.#tree.set(node, unit, child);
        }
        node = child;
      }
      this.#tokenAt[node] = id;
    }
    this.#bytes = fallsBack
      ? Array.from({ length: 256 }, (_, byte) => this.vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`))
      : null;
  }

  tokenize(word: string): Tokens {
    return word === "" ? noTokens : this.#memory.remembering(word, (text) => this.#spelled(text));
  }

  #spelled(word: string): Tokens {
    const [ids, starts, ends]: [number[], number[], number[]] = [[], [], []];
    let bytes = 0;
    for (const piece of this.#pieces(word)) {
      const end = bytes + byteLength(piece);
      const add = (id: number): void => {
        ids.push(id);
        starts.push(bytes);
        ends.push(end);
      };
      const known = this.vocab.get(piece);
      const spelled = known === undefined && this.#bytes ? [...new TextEncoder().encode(piece)].map((byte) => this.#bytes?.[byte]) : [];
      if (known !== undefined) add(known);
      else if (spelled.length > 0 && spelled.every((id) => id !== undefined)) for (const id of spelled) add(id);
      else add(this.#unknownId());
      bytes = end;
    }
    return { ids, starts, ends };
  }

  #unknownId(): number {
    if (this.#unknown === null)
      throw new TokenizerError(
        "The text holds a sign that the vocabulary lacks, and it has no token for the unknown. Use another checkpoint.",
      );
    return this.#unknown;
  }

  /** The best path's pieces; unknown signs in a row are one. */
  #pieces(word: string): string[] {
    const size = word.length;
    const scores = new Float64Array(size + 1);
    const from = new Int32Array(size + 1).fill(-1);
    const ids = new Int32Array(size + 1);
    const offer = (start: number, end: number, score: number, id: number): void => {
      const total = score + (scores[start] as number);
      if ((from[end] as number) >= 0 && total <= (scores[end] as number)) return;
      scores[end] = total;
      from[end] = start;
      ids[end] = id;
    };
    for (let start = 0; start < size; ) {
      const single = start + ((word.codePointAt(start) as number) > 0xffff ? 2 : 1); // start is within the word
      let hasSingle = false;
      let node = 0;
      for (let end = start; end < size; ) {
        node = this.#tree.get(node, word.charCodeAt(end));
        if (node < 0) break;
        end++;
        const id = this.#tokenAt[node] as number;
        if (id < 0) continue;
        offer(start, end, this.#scores[id] as number, id);
        hasSingle ||= end === single;
      }
      if (!hasSingle) offer(start, single, this.#unknownScore, this.#unknownId());
      start = single;
    }
    const pieces: string[] = [];
    /** Where a row of unknown signs ends. */
    let unknownEnd = -1;
    for (let end = size; end > 0; ) {
      const start = from[end] as number;
      if (ids[end] === this.#unknown) {
        if (unknownEnd < 0) unknownEnd = end;
        if (start === 0) pieces.push(word.slice(0, unknownEnd));
      } else {
        if (unknownEnd >= 0) pieces.push(word.slice(end, unknownEnd));
        unknownEnd = -1;
        pieces.push(word.slice(start, end));
      }
      end = start;
    }
    return pieces.reverse();
  }
}
