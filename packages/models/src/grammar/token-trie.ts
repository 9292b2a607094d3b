import type { Automaton, State } from "./automaton.js";

/** The tokens of a vocabulary by their bytes, those with the same beginning together. */
export class TokenTrie {
  /** Bytes of the longest token. */
  readonly longest: number;
  /** The nodes, each before those below it: its last byte, how many bytes it has, the node behind all below it, and its token or −1. */
  readonly #bytes: Uint8Array;
  readonly #depths: Uint32Array;
  readonly #ends: Uint32Array;
  readonly #tokens: Int32Array;
  /** Another token with the same bytes, or −1. */
  readonly #same: Int32Array;

  /** `bytes` are those of each token by its id; null for tokens that are no text. */
  constructor(readonly bytes: readonly (Uint8Array | null)[]) {
    // As signs of one byte each, whose order is that of the bytes.
    const entries = bytes.flatMap((own, token) =>
      own && own.length > 0 ? [{ token, signs: own.reduce((signs, byte) => signs + String.fromCharCode(byte), "") }] : [],
    );
    entries.sort((a, b) => (a.signs < b.signs ? -1 : a.signs > b.signs ? 1 : a.token - b.token));
    const nodes: { readonly byte: number; readonly depth: number; end: number; token: number }[] = [];
    const path: number[] = [];
    this.#same = new Int32Array(bytes.length).fill(-1);
    let before = "";
    for (const { token, signs } of entries) {
      let common = 0;
      while (common < before.length && common < signs.length && before.charCodeAt(common) === signs.charCodeAt(common)) common++;
      for (const node of path.splice(common)) (nodes[node] as { end: number }).end = nodes.length; // of the path
      for (let at = common; at < signs.length; at++) {
        path.push(nodes.length);
        nodes.push({ byte: signs.charCodeAt(at), depth: at, end: 0, token: -1 });
      }
      const last = nodes[path[signs.length - 1] as number] as { token: number }; // of the path, which has all of its bytes
      this.#same[token] = last.token;
      last.token = token;
      before = signs;
    }
    for (const node of path) (nodes[node] as { end: number }).end = nodes.length;
    this.#bytes = Uint8Array.from(nodes, ({ byte }) => byte);
    this.#depths = Uint32Array.from(nodes, ({ depth }) => depth);
    this.#ends = Uint32Array.from(nodes, ({ end }) => end);
    this.#tokens = Int32Array.from(nodes, ({ token }) => token);
    this.longest = entries.reduce((most, { signs }) => Math.max(most, signs.length), 0);
  }

  /** Bits of the tokens that fit after a state, of token i the bit i % 32 of number ⌊i / 32⌋. */
  mask(automaton: Automaton, state: State): Uint32Array {
    const mask = new Uint32Array(Math.ceil(this.bytes.length / 32));
    const states: State[] = [state];
    const [bytes, depths, ends, tokens, same] = [this.#bytes, this.#depths, this.#ends, this.#tokens, this.#same];
    for (let node = 0; node < bytes.length; ) {
      const depth = depths[node] as number; // a node's, as below
      const from = states[depth] as State;
      const byte = bytes[node] as number;
      const known = from.next[byte];
      const to = known === undefined ? automaton.advance(from, byte) : known;
      if (to === null) {
        node = ends[node] as number;
        continue;
      }
      states[depth + 1] = to;
      for (let token = tokens[node] as number; token >= 0; token = same[token] as number)
        mask[token >> 5] = (mask[token >> 5] as number) | (1 << (token & 31));
      node++;
    }
    return mask;
  }
}
