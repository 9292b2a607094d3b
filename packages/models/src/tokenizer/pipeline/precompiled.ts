import { CheckpointError } from "@lowrank/tensor";
import { breaksGrapheme, codePointsOf, isJoining, prepended, utf8Length } from "../unicode/properties.js";
import { type Piece, textOf } from "./piece.js";

const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** Graphemes of so many bytes or more are mapped sign by sign. */
const longestGrapheme = 6;
/** SentencePiece's compiled map of texts (nmt_nfkc and others): a double array of what is replaced, and what by. Rust's Precompiled. */
export class Precompiled {
  readonly #units: Uint32Array;
  readonly #texts: Uint8Array;
  readonly #known = new Map<string, readonly number[] | null>();

  /** Throws CheckpointError where the map is damaged. */
  constructor(base64: string, path: string) {
    const bytes = bytesOf(base64);
    const view = new DataView(bytes.buffer);
    const size = bytes.length >= 4 ? view.getUint32(0, true) : -1;
    if (size < 4 || size % 4 !== 0 || size + 4 > bytes.length)
      throw new CheckpointError(
        `${path}: "normalizer.precompiled_charsmap" is not a compiled map of texts. Fetch the checkpoint again.`,
        path,
      );
    this.#units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.#texts = bytes.subarray(4 + size);
  }

  normalize(piece: Piece): Piece {
    const codes = codePointsOf(piece.text);
    const [out, changes]: [number[], number[]] = [[], []];
    let isChanged = false;
    const put = (old: number, by: readonly number[]): void => {
      isChanged = true;
      for (let i = 0; i < by.length; i++) {
        out.push(by[i] as number);
        changes.push(i >= old ? 1 : 0);
      }
      // What is left out goes with the sign before, even where nothing is put in.
      if (by.length < old && changes.length > 0) changes[changes.length - 1] = (changes[changes.length - 1] as number) - (old - by.length);
    };
    for (let at = 0; at < codes.length; ) {
      const end = graphemeEnd(codes, at);
      const grapheme = codes.slice(at, end);
      const whole = grapheme.reduce((sum, code) => sum + utf8Length(code), 0) < longestGrapheme ? this.#mapped(grapheme) : null;
      if (whole) put(end - at, whole);
      else
        for (const code of grapheme) {
          const by = this.#mapped([code]);
          if (by) put(1, by);
          else {
            out.push(code);
            changes.push(0);
          }
        }
      at = end;
    }
    return isChanged ? piece.transform(out, changes) : piece;
  }

  /** What stands for signs: that of the shortest part of them from the start that has a mapping, as Rust takes it. */
  #mapped(codes: readonly number[]): readonly number[] | null {
    const text = textOf(codes);
    const before = this.#known.get(text);
    if (before !== undefined) return before;
    const found = this.#lookUp(encoder.encode(text));
    if (this.#known.size > 65536) this.#known.clear();
    this.#known.set(text, found);
    return found;
  }

  #lookUp(key: Uint8Array): readonly number[] | null {
    const units = this.#units;
    const offset = (unit: number): number => (unit >>> 10) << ((unit & 0x200) >>> 6);
    let place = offset(units[0] as number); // there is one at least
    for (const byte of key) {
      if (byte === 0) return null;
      place ^= byte;
      const unit = units[place] ?? 0;
      if ((unit & 0x800000ff) >>> 0 !== byte) return null;
      place ^= offset(unit);
      if ((unit & 0x100) === 0) continue;
      const start = (units[place] ?? 0) & 0x7fffffff;
      const end = this.#texts.indexOf(0, start);
      return codePointsOf(decoder.decode(this.#texts.subarray(start, end < 0 ? undefined : end)));
    }
    return null;
  }
}

/** The bytes of a text in base 64; none where it is none. */
function bytesOf(base64: string): Uint8Array {
  try {
    return Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}

/** Where a grapheme ends, as far as those of a few bytes go: line breaks, and signs that join what is before or after them. */
function graphemeEnd(codes: readonly number[], start: number): number {
  const first = codes[start] as number; // Callers start within the codes.
  let at = start + 1;
  if (first === 0x0d) return codes[at] === 0x0a ? at + 1 : at;
  if (breaksGrapheme(first)) return at;
  let last = first;
  for (; at < codes.length; at++) {
    const code = codes[at] as number; // within the codes
    if (!(isJoining(code) || (prepended.has(last) && !breaksGrapheme(code))) && !joinsHangul(last, code)) break;
    last = code;
  }
  return at;
}

/** Whether two signs of Hangul are one syllable. */
function joinsHangul(first: number, second: number): boolean {
  const isLeading = (code: number): boolean => (code >= 0x1100 && code < 0x1160) || (code >= 0xa960 && code < 0xa97d);
  const isVowel = (code: number): boolean => (code >= 0x1160 && code < 0x11a8) || (code >= 0xd7b0 && code < 0xd7c7);
  const isTrailing = (code: number): boolean => (code >= 0x11a8 && code < 0x1200) || (code >= 0xd7cb && code < 0xd7fc);
  const isSyllable = (code: number): boolean => code >= 0xac00 && code < 0xd7a4;
  if (isLeading(first)) return isLeading(second) || isVowel(second) || isSyllable(second);
  if (isVowel(first)) return isVowel(second) || isTrailing(second);
  if (isSyllable(first)) return isTrailing(second) || ((first - 0xac00) % 28 === 0 && isVowel(second));
  return isTrailing(first) && isTrailing(second);
}
