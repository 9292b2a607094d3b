import { CheckpointError, type Json } from "@lowrank/tensor";
import { isWhiteSpace } from "../unicode/properties.js";
import { signOf } from "./byte-alphabet.js";
import { listOf, made } from "./normalizers.js";

/** Tokens of a text, and the places that they stand for, in UTF-16 units of the text. */
export interface Encoded {
  readonly ids: number[];
  readonly starts: number[];
  readonly ends: number[];
}

/** Puts in what belongs before and after a text. `spelled` gives the text of the token at a place. */
export interface PostProcessor {
  /** Tokens that are put before the text, and after it. */
  readonly before: readonly number[];
  readonly after: readonly number[];
  /** Takes white space out of the offsets; the tokens stay. */
  readonly trim: ((encoded: Encoded, text: string, spelled: (place: number) => string) => void) | null;
}

type Maker = (options: Json, path: string) => PostProcessor;

const nothing: PostProcessor = { before: [], after: [], trim: null };

/** Offsets without the white space that tokens begin and end with. */
function trimming(prefixes: boolean): NonNullable<PostProcessor["trim"]> {
  const isSpace = (sign: string): boolean => sign === signOf[0x20] || isWhiteSpace(sign.codePointAt(0) as number); // a sign has a code point
  return ({ ids, starts, ends }, text, spelled) => {
    for (let i = 0; i < ids.length; i++) {
      const signs = [...spelled(i)];
      let leading = signs.findIndex((sign) => !isSpace(sign));
      if (leading < 0) leading = signs.length;
      let trailing = 0;
      while (trailing < signs.length && isSpace(signs[signs.length - 1 - trailing] as string)) trailing++;
      const [start, end] = [starts[i] as number, ends[i] as number];
      // The space that was put before the text is no part of it.
      if (leading === 1 && prefixes && (i === 0 || start === 0)) leading = 0;
      const from = Math.min(moved(text, start, leading), end);
      starts[i] = from;
      if (trailing > 0) ends[i] = Math.max(moved(text, end, -trailing), from);
    }
  };
}

/** A place so many code points on, or back. */
function moved(text: string, place: number, count: number): number {
  let at = place;
  for (let i = 0; i < count && at < text.length; i++) at += (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
  for (let i = 0; i > count && at > 0; i--) at -= at > 1 && (text.codePointAt(at - 2) ?? 0) > 0xffff ? 2 : 1;
  return at;
}

/** Whether a value can be a token's number. */
function isTokenId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function template({ single, special_tokens: special }: Json, path: string): PostProcessor {
  const fail = (fact: string): never => {
    throw new CheckpointError(`${path}: "post_processor" ${fact}. Fetch the checkpoint again.`, path);
  };
  const [before, after]: [number[], number[]] = [[], []];
  let isAfter = false;
  for (const part of Array.isArray(single) ? (single as readonly Json[]) : fail("has no template for a text")) {
    const [kind, value] = Object.entries(part)[0] ?? fail("has an empty part");
    const { id } = value as Json;
    if (kind === "Sequence") {
      if (id !== "A" || isAfter) fail("takes a text twice, or another text");
      isAfter = true;
      continue;
    }
    const token = ((special ?? {}) as Json)[String(id)] as Json | undefined;
    const ids = token?.["ids"];
    if (!Array.isArray(ids) || !ids.every(isTokenId)) return fail(`names the token ${JSON.stringify(id)}, which it does not define`);
    for (const number of ids) (isAfter ? after : before).push(number);
  }
  if (!isAfter) fail("leaves the text out");
  return { before, after, trim: null };
}

function around({ cls, sep }: Json, path: string, trim: PostProcessor["trim"]): PostProcessor {
  const id = (pair: unknown): number => {
    const number = Array.isArray(pair) ? (pair as readonly unknown[])[1] : null;
    if (!isTokenId(number)) throw new CheckpointError(`${path}: "post_processor" has no token's number. Fetch the checkpoint again.`, path);
    return number;
  };
  return { before: [id(cls)], after: [id(sep)], trim };
}

const makers: Readonly<Record<string, Maker>> = {
  BertProcessing: (options, path) => around(options, path, null),
  ByteLevel: ({ trim_offsets: trims = true, add_prefix_space: prefixes = true }) => ({
    ...nothing,
    trim: trims === true ? trimming(prefixes === true) : null,
  }),
  RobertaProcessing: (options, path) => {
    const { trim_offsets: trims = true, add_prefix_space: prefixes = true } = options;
    return around(options, path, trims === true ? trimming(prefixes === true) : null);
  },
  Sequence: ({ processors = [] }, path) => {
    const all = listOf(processors, "processors", path).map((options) => made(makers, options, "post_processor", path));
    const trims = all.flatMap(({ trim }) => (trim ? [trim] : []));
    return {
      before: [...all].reverse().flatMap(({ before }) => before),
      after: all.flatMap(({ after }) => after),
      trim: trims.length === 0 ? null : (encoded, text, spelled) => trims.forEach((trim) => void trim(encoded, text, spelled)),
    };
  },
  TemplateProcessing: template,
};

/** The post-processor that a tokenizer.json describes. Throws CheckpointError where it is none that is known. */
export function postProcessorOf(options: Json | null | undefined, path: string): PostProcessor {
  return options ? made(makers, options, "post_processor", path) : nothing;
}
