import { CheckpointError, type Json } from "@lowrank/tensor";
import { shown } from "../../schema.js";
import { type NormalForm, normalForm } from "../unicode/normal-forms.js";
import { codePointsOf, isCombiningMark, isNonspacingMark, isOther, isWhiteSpace, lowerCase } from "../unicode/properties.js";
import { signOf } from "./byte-alphabet.js";
import { matcherOf, type Pattern } from "./pattern.js";
import type { Piece } from "./piece.js";
import { Precompiled } from "./precompiled.js";

/** Changes a piece before it is split. */
export type Normalizer = (piece: Piece) => Piece;

type Maker = (options: Json, path: string) => Normalizer;

const form =
  (name: NormalForm): Maker =>
  () =>
  (piece) => {
    const changed = normalForm(codePointsOf(piece.text), name);
    return changed ? piece.transform(changed.codes, changed.changes) : piece;
  };

/** The piece without some code points. */
function filtered(piece: Piece, keeps: (code: number) => boolean): Piece {
  const codes = codePointsOf(piece.text);
  const [out, changes]: [number[], number[]] = [[], []];
  let removedFirst = 0;
  for (const code of codes) {
    if (keeps(code)) {
      out.push(code);
      changes.push(0);
    } else if (out.length === 0) removedFirst++;
    else changes[changes.length - 1] = (changes[changes.length - 1] as number) - 1;
  }
  return out.length === codes.length ? piece : piece.transform(out, changes, removedFirst);
}

/** The piece with code points in the place of each. */
function mapped(piece: Piece, map: (code: number) => readonly number[] | null): Piece {
  const [out, changes]: [number[], number[]] = [[], []];
  let isChanged = false;
  for (const code of codePointsOf(piece.text)) {
    const to = map(code);
    if (to) isChanged = true;
    for (const [i, target] of (to ?? [code]).entries()) {
      out.push(target);
      changes.push(i > 0 ? 1 : 0);
    }
  }
  return isChanged ? piece.transform(out, changes) : piece;
}

const lowered = (piece: Piece): Piece => mapped(piece, lowerCase);

/** Ideographs between spaces, as BERT has them. */
function isIdeograph(code: number): boolean {
  return [
    [0x4e00, 0x9fff],
    [0x3400, 0x4dbf],
    [0x20000, 0x2a6df],
    [0x2a700, 0x2b73f],
    [0x2b740, 0x2b81f],
    [0x2b920, 0x2ceaf],
    [0xf900, 0xfaff],
    [0x2f800, 0x2fa1f],
  ].some(([from = 0, to = 0]) => code >= from && code <= to);
}

function bert({
  clean_text: cleans = true,
  handle_chinese_chars: parts = true,
  strip_accents: strips = null,
  lowercase = true,
}: Json): Normalizer {
  return (piece) => {
    let out = piece;
    if (cleans === true) {
      const isControl = (code: number): boolean => code !== 9 && code !== 10 && code !== 13 && isOther(code);
      out = filtered(out, (code) => code !== 0 && code !== 0xfffd && !isControl(code));
      out = mapped(out, (code) => (code !== 0x20 && (code === 9 || code === 10 || code === 13 || isWhiteSpace(code)) ? [0x20] : null));
    }
    if (parts === true) out = mapped(out, (code) => (isIdeograph(code) ? [0x20, code, 0x20] : null));
    if ((strips ?? lowercase) === true) out = filtered(form("NFD")({}, "")(out), (code) => !isNonspacingMark(code));
    return lowercase === true ? lowered(out) : out;
  };
}

/** White space at the ends. */
function strip({ strip_left: left = true, strip_right: right = true }: Json): Normalizer {
  return (piece) => {
    const codes = codePointsOf(piece.text);
    let [from, to] = [0, codes.length];
    if (left === true) while (from < to && isWhiteSpace(codes[from] as number)) from++;
    if (right === true) while (to > from && isWhiteSpace(codes[to - 1] as number)) to--;
    if (from === 0 && to === codes.length) return piece;
    const kept = codes.slice(from, to);
    return piece.transform(
      kept,
      kept.map(() => 0),
      from,
    );
  };
}

/** SentencePiece's nmt: control signs out, other spaces as spaces. */
function nmt(): Normalizer {
  const isRemoved = (code: number): boolean =>
    (code >= 1 && code <= 8) || code === 0x0b || (code >= 0x0e && code <= 0x1f) || code === 0x7f || code === 0x8f || code === 0x9f;
  const spaces: ReadonlySet<number> = new Set([
    0x09, 0x0a, 0x0c, 0x0d, 0x1680, 0x200b, 0x200c, 0x200d, 0x200e, 0x200f, 0x2028, 0x2029, 0x2581, 0xfeff, 0xfffd,
  ]);
  return (piece) =>
    mapped(
      filtered(piece, (code) => !isRemoved(code)),
      (code) => (spaces.has(code) ? [0x20] : null),
    );
}

const encoder = new TextEncoder();

const makers: Readonly<Record<string, Maker>> = {
  BertNormalizer: bert,
  ByteLevel: () => (piece) =>
    mapped(piece, (code) => [...encoder.encode(String.fromCodePoint(code))].map((byte) => (signOf[byte] as string).charCodeAt(0))),
  Lowercase: () => lowered,
  NFC: form("NFC"),
  NFD: form("NFD"),
  NFKC: form("NFKC"),
  NFKD: form("NFKD"),
  Nmt: nmt,
  Precompiled: ({ precompiled_charsmap: map }, path) => {
    if (map === null || map === "") return (piece) => piece;
    const compiled = new Precompiled(String(map), path);
    return (piece) => compiled.normalize(piece);
  },
  Prepend: ({ prepend }, path) => {
    const prefix = textOf(prepend, "prepend", path);
    return (piece) => piece.prepend(prefix);
  },
  Replace: ({ pattern, content }, path) => {
    const match = matcherOf(pattern as Pattern, path);
    const by = textOf(content, "content", path);
    return (piece) => piece.replace(match(piece.text), by);
  },
  Sequence: ({ normalizers = [] }, path) => {
    const all = listOf(normalizers, "normalizers", path).map((options) => normalizerOf(options, path));
    return (piece) => all.reduce((out, normalize) => normalize(out), piece);
  },
  Strip: strip,
  StripAccents: () => (piece) => filtered(piece, (code) => !isCombiningMark(code)),
};

/** The normalizer that a tokenizer.json describes. Throws CheckpointError where it is none that Rust's tokenizers have. */
export function normalizerOf(options: Json | null | undefined, path: string): Normalizer {
  if (!options) return (piece) => piece;
  return made(makers, options, "normalizer", path);
}

/** The parts of a sequence. Throws CheckpointError where it has none. */
export function listOf(value: unknown, name: string, path: string): readonly Json[] {
  if (!Array.isArray(value) || !value.every((item) => typeof item === "object" && item !== null))
    throw new CheckpointError(`${path}: "${name}" is not a list of objects. Fetch the checkpoint again.`, path);
  return value as readonly Json[];
}

/** A text of a part. Throws CheckpointError where it is none. */
export function textOf(value: unknown, name: string, path: string): string {
  if (typeof value !== "string") throw new CheckpointError(`${path}: "${name}" is not a text. Fetch the checkpoint again.`, path);
  return value;
}

/** The fields of parts that hold more than a text, a number or a truth value. */
const structured: ReadonlySet<string> = new Set([
  ...["pattern", "normalizers", "pretokenizers", "decoders", "processors"],
  ...["single", "pair", "special_tokens", "sep", "cls"],
]);

/** The part that a table has a maker for. Throws CheckpointError where there is none, and where a field is of another kind than it takes. */
export function made<T>(table: Readonly<Record<string, (options: Json, path: string) => T>>, options: Json, what: string, path: string): T {
  const { type } = options;
  const maker = typeof type === "string" && Object.hasOwn(table, type) ? table[type] : undefined;
  const wrong = Object.entries(options).find(([name, value]) => typeof value === "object" && value !== null && !structured.has(name));
  if (wrong && maker)
    throw new CheckpointError(
      `${path}: "${wrong[0]}" of the ${what} ${JSON.stringify(type)} is ${shown(wrong[1])}. Correct the file or fetch it again.`,
      path,
    );
  if (!maker)
    throw new CheckpointError(
      `${path}: "${what}" is of the type ${shown(type)}, which is not known. Use a checkpoint whose tokenizer has another.`,
      path,
    );
  try {
    return maker(options, path);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    // A field of it is absent, or holds what it never does.
    throw new CheckpointError(
      `${path}: no ${what} ${JSON.stringify(type)} can be made of its fields (${error.message}). Correct the file or fetch it again.`,
      path,
    );
  }
}
