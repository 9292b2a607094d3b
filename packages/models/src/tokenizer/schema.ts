import { CheckpointError, type Json, mostSteps } from "@lowrank/tensor";
import * as z from "zod/mini";
import { checked, rule, shown } from "../schema.js";

/**
 * Tokens are kept by number, so that a number far beyond how many there are takes memory, or time without end. Vocabularies have gaps:
 * of tokens that were added later, and up to a size that kernels like.
 */
const gaps = { share: 4, count: 2 ** 20 };

/** Characters of what is put into texts: a space's stand-in, a prefix. Each has one or a few. */
const longestPart = 1000;

/** Ways through an expression that a tokenizer splits texts by, whatever the text's length. GPT-4's has some hundred. */
const mostWays = 1e9;

const error = (what: string) => ({
  error: ({ input }: { readonly input?: unknown }) => (input === undefined ? `is missing (${what})` : `is ${shown(input)}, not ${what}`),
});
const text = z.string(error("a text"));
const flag = z._default(z.nullable(z.boolean(error("true or false"))), null);
const optionalText = z._default(z.nullable(text), null);
const id = z.int(error("a token's number")).check(z.minimum(0, error("a token's number")));

/** A part of a tokenizer: what it is, and fields of its own that its maker checks. */
const part = z._default(z.nullable(z.looseObject({ type: text }, error("an object with a type"))), null);

const addedToken = z.looseObject(
  { id, content: text, single_word: flag, lstrip: flag, rstrip: flag, normalized: flag, special: flag },
  error("an added token"),
);

/** As tokenizer_config.json has it, by its number. */
const addedContent = z.looseObject(
  { content: text, single_word: flag, lstrip: flag, rstrip: flag, normalized: flag, special: flag },
  error("an added token"),
);

const merges = z.custom<readonly (string | readonly [string, string])[]>(
  (value) =>
    Array.isArray(value) &&
    value.every((merge) =>
      typeof merge === "string"
        ? merge.includes(" ")
        : Array.isArray(merge) && merge.length === 2 && merge.every((item) => typeof item === "string"),
    ),
  error("a list of pairs of texts"),
);

/** A vocabulary's tokens by number, or with their scores: hundreds of thousands of entries, gone through once and not one schema each. */
const numbered = z.custom<Readonly<Record<string, number>>>(
  (value) =>
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((item) => Number.isSafeInteger(item) && item >= 0),
  error("an object of tokens and their numbers"),
);
const scored = z.custom<readonly (readonly [string, number])[]>(
  (value) =>
    Array.isArray(value) &&
    value.every((entry) => Array.isArray(entry) && entry.length === 2 && typeof entry[0] === "string" && Number.isFinite(entry[1])),
  error("a list of tokens with their scores"),
);

const shared = { unk_token: optionalText, fuse_unk: flag, byte_fallback: flag };
const models = {
  BPE: z.looseObject({
    ...shared,
    vocab: numbered,
    merges,
    ignore_merges: flag,
    continuing_subword_prefix: optionalText,
    end_of_word_suffix: optionalText,
  }),
  WordPiece: z.looseObject({
    ...shared,
    vocab: numbered,
    continuing_subword_prefix: optionalText,
    max_input_chars_per_word: z._default(z.nullable(z.int(error("a number of characters")).check(z.minimum(1))), null),
  }),
  Unigram: z
    .looseObject({ vocab: scored, unk_id: z._default(z.nullable(id), null) })
    .check(rule(({ vocab, unk_id: unknown }) => ((unknown ?? 0) < vocab.length ? null : `"model.unk_id" ${unknown} is no token`))),
  WordLevel: z.looseObject({ ...shared, vocab: numbered }),
};

const tokenizer = z
  .looseObject({
    added_tokens: z._default(z.nullable(z.array(addedToken, error("a list of added tokens"))), null),
    normalizer: part,
    pre_tokenizer: part,
    post_processor: part,
    decoder: part,
    model: z.looseObject({ type: optionalText, vocab: z.unknown() }, error("an object")),
  })
  .check(rule(({ normalizer, pre_tokenizer, post_processor, decoder }) => wrongPart([normalizer, pre_tokenizer, post_processor, decoder])));

const special = z._default(z.nullable(z.union([text, z.looseObject({ content: text })], error("a text or an object with content"))), null);
const template = z.union([text, z.array(z.looseObject({ name: text, template: text }))], error("a text or a list of named ones"));

const configuration = z.looseObject({
  bos_token: special,
  eos_token: special,
  pad_token: special,
  unk_token: special,
  additional_special_tokens: z._default(z.nullable(z.array(z.unknown(), error("a list"))), null),
  chat_template: z._default(z.nullable(template), null),
  added_tokens_decoder: z._default(z.nullable(z.record(z.string(), addedContent)), null),
  extra_special_tokens: z._default(z.nullable(z.union([z.array(z.unknown()), z.record(z.string(), z.unknown())], error("a list"))), null),
});

/** What a tokenizer_config.json says, of which most is Python's own. */
export interface TokenizerConfig extends Json {
  readonly chat_template: string | readonly Json[] | null;
}

/** Throws CheckpointError naming what is wrong with a tokenizer_config.json. */
export function checkTokenizerConfig(json: Json, path: string): TokenizerConfig {
  return checked(configuration, json, path);
}

/** Throws CheckpointError naming what is wrong with a tokenizer.json, before anything is made of it. */
export function checkTokenizer(json: Json, path: string): void {
  const { model, added_tokens: added } = checked(tokenizer, json, path);
  const kind = model.type ?? kindOf(model);
  if (!Object.hasOwn(models, kind))
    throw new CheckpointError(
      `${path}: "model.type" is ${shown(kind)}, supported are ${Object.keys(models).join(", ")}. Use a checkpoint with one of these.`,
      path,
    );
  const { vocab } = checked<{ readonly vocab: object }>(models[kind as keyof typeof models], model, path, "model");
  const numbers = Array.isArray(vocab) ? [vocab.length - 1] : Object.values(vocab as Readonly<Record<string, number>>);
  const size = (Array.isArray(vocab) ? vocab.length : numbers.length) + (added?.length ?? 0);
  const largest = (added ?? []).reduce(
    (most, token) => Math.max(most, token.id),
    numbers.reduce((most, number) => Math.max(most, number), 0),
  );
  if (largest >= gaps.share * size + gaps.count)
    throw new CheckpointError(
      `${path}: a token has the number ${largest}, and there are ${size} tokens. Correct the file or fetch it again.`,
      path,
    );
}

/** As files from before there was a type are told apart. */
function kindOf(model: Json): string {
  return Array.isArray(model["vocab"]) ? "Unigram" : Object.hasOwn(model, "merges") ? "BPE" : "WordPiece";
}

/**
 * A sentence's part about the first pattern that is none or whose expression might not end on a text, and about a text that would make others
 * many times as long; or null.
 */
function wrongPart(parts: readonly unknown[]): string | null {
  const waiting = [...parts];
  while (waiting.length > 0) {
    const value = waiting.pop();
    if (typeof value !== "object" || value === null) continue;
    for (const [key, item] of Object.entries(value)) {
      if (key === "pattern" && !isPattern(item)) return `"pattern" is ${shown(item)}, not a String or a Regex`;
      if (typeof item !== "string") waiting.push(item);
      else if (key !== "Regex") {
        if (key !== "precompiled_charsmap" && item.length > longestPart) return `"${key}" is ${shown(item)}, of ${item.length} characters`;
      } else if (item.length > 20_000 || mostSteps(item, 0) > mostWays)
        return `the expression ${shown(item)} may take time without end to match`;
    }
  }
  return null;
}

function isPattern(value: unknown): boolean {
  const { String: text, Regex: expression } = (value ?? {}) as { readonly String?: unknown; readonly Regex?: unknown };
  return typeof text === "string" || typeof expression === "string";
}
