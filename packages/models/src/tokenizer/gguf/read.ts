import type { Json } from "@lowrank/tensor";
import { type GgufMetadata, MetadataReader, tokenTypes } from "./fields.js";
import { type PreTokenizerKind, preTokenizerKinds, spacedKinds } from "./kinds.js";
import { mergesOfScores } from "./merges.js";

/** A tokenizer as the files beside a checkpoint have it, made of a GGUF file's metadata. */
export interface GgufTokenizer {
  /** tokenizer.json. */
  readonly json: Json;
  /** tokenizer_config.json, with the chat templates where there are several. */
  readonly config: Json;
  /** chat_template.jinja; null where there is none, or several. */
  readonly template: string | null;
  /** Tokens that end a text or a turn. */
  readonly ends: readonly number[];
}

/** Special tokens: what tokenizer_config.json and GGUF call them. */
const named = [
  ["bos_token", "tokenizer.ggml.bos_token_id"],
  ["eos_token", "tokenizer.ggml.eos_token_id"],
  ["unk_token", "tokenizer.ggml.unknown_token_id"],
  ["sep_token", "tokenizer.ggml.seperator_token_id"],
  ["pad_token", "tokenizer.ggml.padding_token_id"],
  ["cls_token", "tokenizer.ggml.cls_token_id"],
  ["mask_token", "tokenizer.ggml.mask_token_id"],
] as const;

/** Names of tokens that end a turn, where nothing but the chat template says so. Those that llama.cpp goes by. */
const turnEnds = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>", "<|eom_id|>", "<|return|>", "<end_of_utterance>"];

/** The vocabulary as the file has it, padding left out. */
interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: ArrayLike<number>;
  readonly scores: ArrayLike<number>;
  /** Whether a number is of a token, and not only filling up to a size. */
  readonly isToken: (id: number) => boolean;
}

/**
 * The tokenizer that a GGUF file describes, as the Rust tokenizers have it; null where it describes none. Throws CheckpointError for a model of
 * tokenizers or a pre-tokenizer that is not known, by its name, and for damaged fields.
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
 */
export function ggufTokenizer(metadata: GgufMetadata, path: string): GgufTokenizer | null {
  const reader = new MetadataReader(metadata, path);
  const model = reader.text("tokenizer.ggml.model");
  if (model === null || model === "none" || model === "no_vocab") return null;
  const vocabulary = vocabularyOf(reader);
  const whole = reader.text("tokenizer.huggingface.json");
  const json = whole === null ? tokenizerJson(model, vocabulary, reader) : parsed(whole, reader);
  const special = named.flatMap(([name, key]) => {
    const id = reader.token(key, vocabulary.tokens.length);
    return id === null ? [] : [[name, vocabulary.tokens[id] as string] as const];
  });
  const { template, templates } = templatesOf(reader);
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    clean_up_tokenization_spaces: false,
    ...Object.fromEntries(special),
    ...(templates && { chat_template: templates }),
  };
  return { json, config, template, ends: endsOf(reader, vocabulary, [template ?? "", ...(templates ?? []).map((item) => item.template)]) };
}

function parsed(text: string, reader: MetadataReader): Json {
  try {
    const json: unknown = JSON.parse(text);
    if (typeof json === "object" && json !== null && !Array.isArray(json)) return json as Json;
  } catch {
    // Told below.
  }
  throw reader.wrong('the metadata "tokenizer.huggingface.json" is no JSON object', "Convert the model again");
}

function vocabularyOf(reader: MetadataReader): Vocabulary {
  const listed = reader.texts("tokenizer.ggml.tokens");
  if (!listed) throw reader.wrong('the metadata "tokenizer.ggml.tokens" is missing', "Convert the model again");
  const types = reader.numbers("tokenizer.ggml.token_type") ?? [];
  const scores = reader.numbers("tokenizer.ggml.scores") ?? [];
  const seen = new Set<string>();
  const tokens = listed.map((token, id) => {
    // As llama.cpp calls one without a text; two of one text are bytes that are no text.
    const own = token === "" ? `[EMPTY_${id}]` : seen.has(token) ? `[DUPLICATE_${id}]` : token;
    seen.add(own);
    return own;
  });
  const isToken = (id: number): boolean =>
    !(types[id] === tokenTypes.unused && /^\[(PAD|DUPLICATE_|EMPTY_)\d+\]$/.test(tokens[id] as string));
  return { tokens, types, scores, isToken };
}

function tokenizerJson(model: string, vocabulary: Vocabulary, reader: MetadataReader): Json {
  const pre = reader.text("tokenizer.ggml.pre") ?? "default";
  if (model === "llama") return spaced(vocabulary, reader, true);
  if (model === "gemma4" || (model === "gpt2" && spacedKinds.has(pre))) return spaced(vocabulary, reader, false);
  if (model !== "gpt2")
    throw reader.wrong(
      `its tokenizer is of the model "${model}", and "gpt2", "llama" and "gemma4" are read`,
      "Put the model's tokenizer.json beside the file",
    );
  const kind = preTokenizerKinds.find(({ names }) => names.includes(pre));
  if (!kind)
    throw reader.wrong(
      `the pre-tokenizer "${pre}" is not known (known are ${preTokenizerKinds.flatMap(({ names }) => names).join(", ")})`,
      "Put the model's tokenizer.json beside the file",
    );
  return inBytes(vocabulary, kind, reader);
}

/** A byte-level vocabulary. */
function inBytes(vocabulary: Vocabulary, kind: PreTokenizerKind, reader: MetadataReader): Json {
  const merges = reader.texts("tokenizer.ggml.merges");
  if (!merges) throw reader.wrong('the metadata "tokenizer.ggml.merges" is missing', "Convert the model again");
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false };
  const around = aroundTexts(vocabulary, reader, kind.beginsTexts);
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary, false),
    normalizer: kind.normalizer,
    pre_tokenizer: kind.splits.length === 1 ? kind.splits[0] : { type: "Sequence", pretokenizers: kind.splits },
    post_processor: around ? { type: "Sequence", processors: [byteLevel, around] } : byteLevel,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: kind.ignoresMerges,
      vocab: numbersOf(vocabulary, false),
      merges: written(merges),
    },
  };
}

/** A vocabulary of texts in which ▁ stands for a space: SentencePiece's, and what is made like it. */
function spaced(vocabulary: Vocabulary, reader: MetadataReader, isByScores: boolean): Json {
  const { tokens, types, scores } = vocabulary;
  const prefixes = reader.flag("tokenizer.ggml.add_space_prefix") ?? isByScores;
  const trims = reader.flag("tokenizer.ggml.remove_extra_whitespaces") ?? false;
  const listed = reader.texts("tokenizer.ggml.merges");
  if (!listed && !isByScores) throw reader.wrong('the metadata "tokenizer.ggml.merges" is missing', "Convert the model again");
  if (!listed && scores.length < tokens.length)
    throw reader.wrong(`"tokenizer.ggml.scores" has ${scores.length} scores for ${tokens.length} tokens`, "Convert the model again");
  const texts = tokens.map((token, id) => spelt(token, types[id]));
  const unknown = reader.token("tokenizer.ggml.unknown_token_id", tokens.length) ?? firstOf(types, tokens.length, tokenTypes.unknown);
  const replace = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const normalizers = [
    ...(trims
      ? [
          { type: "Strip", strip_left: true, strip_right: true },
          { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
        ]
      : []),
    ...(prefixes ? [{ type: "Prepend", prepend: "▁" }] : []),
    replace,
  ];
  const decoders = [{ type: "Replace", pattern: { String: "▁" }, content: " " }, { type: "ByteFallback" }, { type: "Fuse" }];
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary, true),
    normalizer: normalizers.length === 1 ? replace : { type: "Sequence", normalizers },
    pre_tokenizer: null,
    post_processor: aroundTexts(vocabulary, reader, true),
    decoder: { type: "Sequence", decoders: prefixes ? [...decoders, { type: "Strip", content: " ", start: 1, stop: 0 }] : decoders },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: unknown === null ? null : tokens[unknown],
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: tokens.includes("<0x00>"),
      ignore_merges: false,
      vocab: numbersOf(vocabulary, true),
      merges: listed ? written(listed) : mergesOfScores({ tokens: texts, types, scores }),
    },
  };
}

/** Rows of spaces that a user defined are ▁ in the vocabulary; in the file they are the spaces that texts have. */
function spelt(token: string, type: number | undefined): string {
  return type === tokenTypes.userDefined && /^ +$/.test(token) ? token.replaceAll(" ", "▁") : token;
}

function firstOf(types: ArrayLike<number>, count: number, type: number): number | null {
  for (let id = 0; id < Math.min(types.length, count); id++) if (types[id] === type) return id;
  return null;
}

function numbersOf({ tokens, types, isToken }: Vocabulary, isSpaced: boolean): Readonly<Record<string, number>> {
  const entries: [string, number][] = [];
  for (let id = 0; id < tokens.length; id++)
    if (isToken(id)) entries.push([isSpaced ? spelt(tokens[id] as string, types[id]) : (tokens[id] as string), id]);
  return Object.fromEntries(entries);
}

/** Tokens that are found in texts as they stand. */
function addedTokens({ tokens, types }: Vocabulary, isSpaced: boolean): readonly Json[] {
  const added: Json[] = [];
  for (let id = 0; id < tokens.length; id++) {
    const type = types[id];
    const isSpecial = type === tokenTypes.control || type === tokenTypes.unknown;
    if (!isSpecial && type !== tokenTypes.userDefined) continue;
    const content = isSpaced ? spelt(tokens[id] as string, type) : tokens[id];
    added.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: isSpecial });
  }
  return added;
}

/** What puts begin and end tokens around texts; null where there is nothing to put. */
function aroundTexts({ tokens }: Vocabulary, reader: MetadataReader, begins: boolean): Json | null {
  const one = (flag: string, key: string, otherwise: boolean): readonly number[] => {
    const id = reader.token(key, tokens.length);
    return id !== null && (reader.flag(flag) ?? otherwise) ? [id] : [];
  };
  const before = one("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", begins);
  const after = one("tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id", false);
  if (before.length + after.length === 0) return null;
  const special = (type: number) => (id: number) => ({ SpecialToken: { id: tokens[id], type_id: type } });
  const text = (id: string, type: number) => [
    ...before.map(special(type)),
    { Sequence: { id, type_id: type } },
    ...after.map(special(type)),
  ];
  return {
    type: "TemplateProcessing",
    single: text("A", 0),
    pair: [...text("A", 0), ...text("B", 1)],
    special_tokens: Object.fromEntries(
      [...before, ...after].map((id) => [tokens[id], { id: tokens[id], ids: [id], tokens: [tokens[id]] }]),
    ),
  };
}

/** Merges as tokenizer.json has them: texts with a space between, or pairs where a token has a space itself. */
function written(merges: readonly string[]): readonly (string | readonly [string, string])[] {
  if (merges.every((merge) => merge.indexOf(" ") > 0)) return merges;
  return merges.map((merge) => {
    const cut = merge.indexOf(" ", 1);
    return [merge.slice(0, cut), merge.slice(cut + 1)] as const;
  });
}

function templatesOf(reader: MetadataReader): {
  readonly template: string | null;
  readonly templates: { name: string; template: string }[] | null;
} {
  const standard = reader.text("tokenizer.chat_template");
  const further = (reader.texts("tokenizer.chat_templates") ?? []).flatMap((name) => {
    const template = reader.text(`tokenizer.chat_template.${name}`);
    return template === null || name === "default" ? [] : [{ name, template }];
  });
  if (further.length === 0) return { template: standard, templates: null };
  return { template: null, templates: [...(standard === null ? [] : [{ name: "default", template: standard }]), ...further] };
}

function endsOf(reader: MetadataReader, { tokens, types }: Vocabulary, templates: readonly string[]): readonly number[] {
  const known = ["eos", "eot", "eom"].flatMap((name) => reader.token(`tokenizer.ggml.${name}_token_id`, tokens.length) ?? []);
  const spoken = turnEnds.filter((name) => templates.some((template) => template.includes(name)));
  const found = spoken.flatMap((name) => {
    const id = tokens.indexOf(name);
    return id >= 0 && types[id] !== tokenTypes.normal ? [id] : [];
  });
  // gpt-oss ends messages inside of a turn with <|end|>, and turns with <|return|>.
  const isInner = (id: number): boolean => tokens[id] === "<|end|>" && spoken.includes("<|return|>");
  return [...new Set([...known, ...found.filter((id) => !isInner(id))])];
}
