import { type Generator, type Tensor, tensor } from "@lowrank/tensor";
import * as z from "zod/mini";
import { AdapterError } from "../errors.js";
import type { Method } from "./method.js";
import {
  occupying,
  onlyPlace,
  plainSource,
  type VirtualTokenOptions,
  type VirtualTokenPlace,
  virtualTokenCount,
  virtualTokenMethod,
  virtualTokensFromPeft,
  virtualTokensToPeft,
} from "./virtual-tokens.js";

/** How a prompt is set up. Names in parentheses are PEFT's. */
export interface PromptOptions extends VirtualTokenOptions {
  /**
   * First values (`prompt_tuning_init`): "random", normal with deviation 1; "vocabulary", the embeddings of random tokens; "text", those of
   * `initTokens`. Default "text" where there are such tokens, else "random".
   */
  readonly init: "random" | "vocabulary" | "text";
  /** The token ids of a text to start from; cut or repeated to `virtualTokens`. */
  readonly initTokens?: readonly number[];
  /** The text of `initTokens`, for the file (`prompt_tuning_init_text`). */
  readonly initText?: string;
  /** Path or hub name of the tokenizer that made them, for the file (`tokenizer_name_or_path`). */
  readonly tokenizer?: string;
  /** What PEFT loads that tokenizer with (`tokenizer_kwargs`); kept for the file. */
  readonly tokenizerSettings?: Readonly<Record<string, unknown>>;
}

const inits = { RANDOM: "random", SAMPLE_VOCAB: "vocabulary", TEXT: "text" } as const;

/** Ids cut or repeated to a count. Throws AdapterError for no ids or ids outside the vocabulary. */
function fitted(ids: readonly number[] | undefined, count: number, vocabulary: number): number[] {
  if (ids === undefined || ids.length === 0)
    throw new AdapterError(`init is "text" and there are no initTokens. Give the text's token ids, or init "random" or "vocabulary".`, [
      "initTokens",
    ]);
  const outside = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary);
  if (outside !== undefined)
    throw new AdapterError(
      `initTokens holds ${outside}, which is no token of the model's vocabulary of ${vocabulary}. Use the tokenizer that belongs to the model.`,
      ["initTokens"],
    );
  return Array.from({ length: count }, (_, i) => ids[i % ids.length] as number); // the index is below the length
}

/** The first embeddings [virtualTokens, width], f32. */
function firstValues({ embedding, width, promptScale }: VirtualTokenPlace, options: PromptOptions, generator: Generator): Tensor {
  const { virtualTokens: count, init, initTokens } = options;
  if (init === "random") return generator.normal([count, width]);
  const vocabulary = embedding.weight.sizeAt(0);
  const ids =
    init === "vocabulary"
      ? generator.uniform([count]).mul(vocabulary).floor().cast("i32")
      : tensor(fitted(initTokens, count, vocabulary), { dtype: "i32", device: generator.device });
  const rows = embedding.weight.gather(ids, 0).cast("f32");
  return promptScale === 1 ? rows : rows.mul(promptScale);
}

/**
 * Prompt tuning (Lester et al. 2021, section 2): learned embeddings P stand in front of the text's own, the input is [P; E(x)]. Logits have
 * their positions in front; the loss does not count them.
 */
export const prompt: Method<PromptOptions, VirtualTokenPlace> = virtualTokenMethod("prompt", {
  options: (given, model) => {
    const { virtualTokens, initTokens, initText, tokenizer, tokenizerSettings } = given;
    const { init = initTokens === undefined ? "random" : "text" } = given;
    if (!Object.values(inits).includes(init))
      throw new AdapterError(`init is "${String(init)}". Use "random", "vocabulary" or "text".`, ["init"]);
    return {
      virtualTokens: virtualTokenCount(virtualTokens, model),
      init,
      ...(initTokens !== undefined && { initTokens }),
      ...(initText !== undefined && { initText }),
      ...(tokenizer !== undefined && { tokenizer }),
      ...(tokenizerSettings !== undefined && { tokenizerSettings }),
    };
  },
  // A file's values take the place of the first ones, and it has a text but no ids.
  source: (place, options, { generator, isLoaded }) =>
    plainSource(firstValues(place, isLoaded ? { ...options, init: "random" } : options, generator)),
  enable: ({ slots }, { virtualTokens: length }, values) => occupying(slots, "prompt", { length, embeddings: values }),
  toPeft: (options, places) => {
    const place = onlyPlace(places);
    const { init, initText, tokenizer, tokenizerSettings } = options;
    // PEFT refuses TEXT without both, and reads neither when it loads.
    const isText = init === "text" && initText !== undefined && tokenizer !== undefined;
    return {
      ...virtualTokensToPeft(options, place, place.width, place.heads),
      peft_type: "PROMPT_TUNING",
      prompt_tuning_init: isText ? "TEXT" : init === "vocabulary" ? "SAMPLE_VOCAB" : "RANDOM",
      prompt_tuning_init_text: initText ?? null,
      tokenizer_kwargs: isText ? (tokenizerSettings ?? null) : null,
      tokenizer_name_or_path: tokenizer ?? null,
    };
  },
  fromPeft: (fields) => {
    if (fields.peek("peft_type") !== "PROMPT_TUNING") return null;
    const { virtualTokens } = virtualTokensFromPeft(fields);
    const name = fields.peek("prompt_tuning_init") ?? "RANDOM";
    // An unknown one stays, to be refused.
    const isKnown = typeof name === "string" && Object.hasOwn(inits, name);
    if (isKnown) fields.pass("prompt_tuning_init");
    const initText = fields.takeText("prompt_tuning_init_text");
    const tokenizer = fields.takeText("tokenizer_name_or_path");
    const settings = fields.take<Record<string, unknown> | undefined>(
      "tokenizer_kwargs",
      z.record(z.string(), z.unknown()),
      "an object",
      undefined,
    );
    return {
      virtualTokens,
      init: isKnown ? inits[name as keyof typeof inits] : "random",
      ...(initText !== null && { initText }),
      ...(tokenizer !== null && { tokenizer }),
      ...(settings !== undefined && { tokenizerSettings: settings }),
    };
  },
});
