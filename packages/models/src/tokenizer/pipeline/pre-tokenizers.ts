import { CheckpointError, type Json } from "@lowrank/tensor";
import { isNumeric, isPunctuation, isRegexSpace, isWhiteSpace, isWord } from "../unicode/properties.js";
import { signsOf } from "./byte-alphabet.js";
import { listOf, made } from "./normalizers.js";
import { expressionMatcher, inverted, matcherOf, type Pattern } from "./pattern.js";
import { type Behavior, type Part, Piece, partsWhere, unitsOfBytes } from "./piece.js";

/** Splits a piece into words. */
export type PreTokenizer = (piece: Piece) => readonly Piece[];

type Maker = (options: Json, path: string) => PreTokenizer;

/** GPT-2's words. */
const gpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** A word as the signs of its bytes, each of which stands for the sign that the byte is of. */
export function inBytes(piece: Piece): Piece {
  const text = signsOf(piece.text);
  if (text === piece.text) return piece;
  const [starts, ends] = [new Int32Array(text.length), new Int32Array(text.length)];
  const units = unitsOfBytes(piece.text);
  for (let byte = 0; byte < text.length; byte++) {
    const unit = units ? (units[byte] as number) : byte;
    starts[byte] = piece.start(unit);
    ends[byte] = piece.end(unit);
  }
  return new Piece(text, piece.origin, starts, ends);
}

/** The words of the ByteLevel pre-tokenizer before they become bytes. */
export function byteLevelWords({ add_prefix_space: prefixes = true, use_regex: splits = true }: Json, path: string): PreTokenizer {
  const match = splits === false ? null : expressionMatcher(gpt2, path);
  return (piece) => {
    const prefixed = prefixes === true && !piece.text.startsWith(" ") ? piece.prepend(" ") : piece;
    return match ? prefixed.split(match(prefixed.text), "Isolated") : [prefixed];
  };
}

function metaspace({ replacement = "▁", prepend_scheme: scheme, add_prefix_space: prefixes, split: splits = true }: Json): PreTokenizer {
  const sign = String(replacement);
  const when = scheme ?? (prefixes === false ? "never" : "always");
  return (piece) => {
    let out = piece.replace(
      partsWhere(piece.text, (code) => code === 0x20),
      sign,
    );
    const isAt = when === "always" || (when === "first" && (out.text === "" ? out.origin : out.start(0)) === 0);
    if (isAt && !out.text.startsWith(sign)) out = out.prepend(sign);
    if (splits === false) return [out];
    return out.split(
      partsWhere(out.text, (code) => code === sign.codePointAt(0)),
      "MergedWithNext",
    );
  };
}

/** Words, and rows of other signs; nothing of the white space. */
function whitespace(): PreTokenizer {
  const kindOf = (code: number): number => (isRegexSpace(code) ? 0 : isWord(code) ? 1 : 2);
  return (piece) => {
    const words: Piece[] = [];
    let [from, kind] = [0, 0];
    for (const [start, end] of [...partsWhere(piece.text, () => true), [piece.text.length, piece.text.length] as const]) {
      const next = start < end ? kindOf(piece.text.codePointAt(start) as number) : 0; // start is within the text
      if (next === kind) continue;
      if (kind !== 0) words.push(piece.slice(from, start));
      [from, kind] = [start, next];
    }
    return words;
  };
}

const where =
  (holds: (code: number) => boolean, behavior: Behavior): PreTokenizer =>
  (piece) =>
    piece.split(partsWhere(piece.text, holds), behavior);

const behaviors: readonly Behavior[] = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"];

function behaviorOf(value: unknown, path: string): Behavior {
  const found = behaviors.find((behavior) => behavior === value);
  if (!found)
    throw new CheckpointError(
      `${path}: "behavior" is ${JSON.stringify(value)}, known are ${behaviors.join(", ")}. Fetch the checkpoint again.`,
      path,
    );
  return found;
}

const makers: Readonly<Record<string, Maker>> = {
  BertPreTokenizer: () => (piece) => where(isWhiteSpace, "Removed")(piece).flatMap((word) => where(isPunctuation, "Isolated")(word)),
  ByteLevel: (options, path) => {
    const words = byteLevelWords(options, path);
    return (piece) => words(piece).map(inBytes);
  },
  CharDelimiterSplit: ({ delimiter }) => where((code) => code === String(delimiter).codePointAt(0), "Removed"),
  Digits: ({ individual_digits: isEach = false }) => where(isNumeric, isEach === true ? "Isolated" : "Contiguous"),
  FixedLength: ({ length = 5 }) => {
    const size = Math.max(1, Number(length));
    return (piece) => {
      const signs = partsWhere(piece.text, () => true);
      const parts: Part[] = [];
      for (let i = 0; i < signs.length; i += size)
        parts.push([signs[i]?.[0] ?? 0, signs[Math.min(signs.length, i + size) - 1]?.[1] ?? 0, true]);
      return piece.split(parts, "Isolated");
    };
  },
  Metaspace: metaspace,
  Punctuation: ({ behavior = "Isolated" }, path) => where(isPunctuation, behaviorOf(behavior, path)),
  Sequence: ({ pretokenizers = [] }, path) => {
    const all = listOf(pretokenizers, "pretokenizers", path).map((options) => preTokenizerOf(options, path));
    return (piece) => all.reduce<readonly Piece[]>((pieces, split) => pieces.flatMap((part) => split(part)), [piece]);
  },
  Split: ({ pattern, behavior, invert = false }, path) => {
    const match = matcherOf(pattern as Pattern, path);
    const used = invert === true ? inverted(match) : match;
    const how = behaviorOf(behavior, path);
    return (piece) => piece.split(used(piece.text), how);
  },
  Whitespace: whitespace,
  WhitespaceSplit: () => where(isWhiteSpace, "Removed"),
};

/** A pre-tokenizer, and whether its words become bytes after that, as the vocabulary spells them. */
export interface Splitting {
  readonly words: PreTokenizer;
  readonly isInBytes: boolean;
}

/** As `preTokenizerOf`, with a ByteLevel at its end set apart: words can be remembered before they are bytes. */
export function splittingOf(options: Json | null | undefined, path: string): Splitting {
  if (options?.["type"] === "ByteLevel") return { words: byteLevelWords(options, path), isInBytes: true };
  const parts = options?.["type"] === "Sequence" ? options["pretokenizers"] : null;
  const last = Array.isArray(parts) ? (parts.at(-1) as Json | undefined) : undefined;
  if (last?.["type"] !== "ByteLevel") return { words: preTokenizerOf(options, path), isInBytes: false };
  const before = preTokenizerOf({ type: "Sequence", pretokenizers: (parts as readonly Json[]).slice(0, -1) }, path);
  const words = byteLevelWords(last, path);
  return { words: (piece) => before(piece).flatMap((part) => words(part)), isInBytes: true };
}

/** The pre-tokenizer that a tokenizer.json describes. Throws CheckpointError where it is none that is known. */
export function preTokenizerOf(options: Json | null | undefined, path: string): PreTokenizer {
  return options ? made(makers, options, "pre_tokenizer", path) : (piece) => [piece];
}
