import { digestOf, eventLoopTurn, type Json, largest } from "@lowrank/tensor";
import { type ChatMessage, type ChatOptions, ChatRenderer, type ChatTemplates, type RenderedChat } from "./chat.js";
import { declaredTokens, templateTokens, tokenText } from "./declared-tokens.js";
import type { AddedToken } from "./pipeline/added-tokens.js";
import { Pipeline } from "./pipeline/pipeline.js";
import { checkTokenizer, checkTokenizerConfig, type TokenizerConfig } from "./schema.js";

/** Tokens of a text, and the part of it that each stands for. */
export interface EncodedText {
  readonly ids: readonly number[];
  /** [start, end) in UTF-16 units of the text. */
  readonly offsets: readonly (readonly [start: number, end: number])[];
}

/** Text to token ids and back, as the checkpoint's tokenizer.json says. */
export class Tokenizer {
  readonly bosTokenId: number | null;
  eosTokenId: number | null;
  readonly padTokenId: number | null;
  /** One more than the largest id. */
  readonly vocabSize: number;
  /** Characters of the longest token, as the vocabulary spells it. */
  readonly longestToken: number;
  /** The Jinja template that turns a conversation into text; null where none ships. */
  chatTemplate: string | null;
  readonly #pipeline: Pipeline;
  readonly #config: TokenizerConfig;
  #chat: ChatRenderer;
  #ends: readonly number[] = [];
  #contents: string | (() => string);

  /**
   * From the contents of tokenizer.json and tokenizer_config.json, and chat_template.jinja or the templates by name, which go before those of
   * tokenizer_config.json. Throws CheckpointError when they do not make a tokenizer.
   */
  constructor(json: Json, config: Json = {}, chatTemplate: string | ChatTemplates | null = null, path = "tokenizer.json", known?: Known) {
    this.#config = known?.config ?? checkFiles(json, config, path);
    this.#contents = () => contentsOf(json, config, chatTemplate);
    const configPath = path.replace(/tokenizer\.json$/, "tokenizer_config.json");
    this.#pipeline = new Pipeline(json, declaredTokens(this.#config, configPath), path);
    this.vocabSize = this.#pipeline.size;
    const { model, added } = this.#pipeline;
    this.longestToken = largest(
      [...model.vocab.keys(), ...added.byContent.keys()].map((token) => token.length),
      1,
    );
    this.bosTokenId = this.#idOf("bos_token");
    this.eosTokenId = this.#idOf("eos_token");
    this.padTokenId = this.#idOf("pad_token");
    const templates = templatesOf(chatTemplate ?? this.#config.chat_template);
    this.chatTemplate = templates["default"] ?? Object.values(templates)[0] ?? null;
    this.#chat = new ChatRenderer(templates, templateTokens(this.#config));
  }

  /**
   * As the constructor, with turns of the event loop in between: a vocabulary of a quarter of a million tokens takes more than a second.
   * Rejects with CheckpointError as that throws.
   */
  static async open(json: Json, config: Json, chatTemplate: string | ChatTemplates | null, path: string): Promise<Tokenizer> {
    const checked = checkFiles(json, config, path);
    await eventLoopTurn();
    return new Tokenizer(json, config, chatTemplate, path, { config: checked });
  }

  /** A digest of what it was made of, found when it is first asked for: of a large vocabulary it takes longer than to parse it. */
  get digest(): string {
    if (typeof this.#contents !== "string") this.#contents = this.#contents();
    return this.#contents;
  }

  /**
   * Token ids of a text, with the begin and end tokens that the checkpoint's post-processor adds unless `addSpecialTokens` is false: those that
   * the Rust tokenizers 0.23 give. Throws TokenizerError where a sign is unknown and the vocabulary has no token for that.
   */
  encode(text: string, options: { readonly addSpecialTokens?: boolean } = {}): number[] {
    return this.#pipeline.encode(text, options.addSpecialTokens ?? true);
  }

  /**
   * As `encode`, with the part of the text that each token stands for as [start, end) in UTF-16 units: Rust's `offsets`, which count code points.
   * A token of some of a sign's bytes stands for the sign; one that the post-processor added has [0, 0].
   */
  encodeWithOffsets(text: string, options: { readonly addSpecialTokens?: boolean } = {}): EncodedText {
    const { ids, starts, ends } = this.#pipeline.encodeWithOffsets(text, options.addSpecialTokens ?? true);
    return { ids, offsets: ids.map((_, i) => [starts[i] as number, ends[i] as number] as const) };
  }

  /** The texts of tokens that were added to the vocabulary, most of them special. */
  get specialTokens(): readonly string[] {
    return [...this.#pipeline.added.byContent.keys()];
  }

  /** A token that was added to the vocabulary, by its text, with what it is; null where there is none. */
  addedToken(text: string): AddedToken | null {
    return this.#pipeline.added.byContent.get(text) ?? null;
  }

  /** Tokens that the post-processor puts before a text and after it. */
  get around(): { readonly before: readonly number[]; readonly after: readonly number[] } {
    return this.#pipeline.around;
  }

  /** The chat templates by name. */
  get chatTemplates(): ChatTemplates {
    return this.#chat.templates;
  }

  /** The texts of the tokens that end a generation. */
  get endTokens(): readonly string[] {
    const ids = this.eosTokenId === null ? this.#ends : [this.eosTokenId, ...this.#ends];
    return [...new Set(ids)].flatMap((id) => this.token(id) ?? []);
  }

  /** Renders with another template than the checkpoint's own: the one that an adapter was trained with. */
  useChatTemplate(template: string): void {
    this.chatTemplate = template;
    this.#chat = new ChatRenderer({ default: template }, this.#chat.special);
  }

  /** Takes the end tokens that a model names; the first of them ends texts where the tokenizer's own files name none. */
  useEndTokens(ids: readonly number[]): void {
    this.#ends = ids.filter((id) => this.token(id) !== null);
    this.eosTokenId ??= this.#ends[0] ?? null;
  }

  /** Text of token ids, as Rust decodes them; special tokens are left out unless `skipSpecialTokens` is false. */
  decode(ids: Iterable<number>, options: { readonly skipSpecialTokens?: boolean } = {}): string {
    return this.#pipeline.decode(ids, options.skipSpecialTokens ?? true);
  }

  /** The id of a token, or null where the vocabulary lacks it. */
  tokenId(token: string): number | null {
    return this.#pipeline.tokenId(token);
  }

  /** The token of an id as the vocabulary spells it, or null. */
  token(id: number): string | null {
    return this.#pipeline.token(id);
  }

  /**
   * The bytes that a token adds to a text; null for special tokens, which are no text, and for ids that no token has. Throws TokenizerError where
   * what a token writes depends on those around it (BPEDecoder, CTC).
   */
  tokenBytes(id: number): Uint8Array | null {
    return this.#pipeline.tokenBytes(id);
  }

  /**
   * A conversation as text, through the checkpoint's chat template; encode it with `addSpecialTokens: false`. Numbers that JavaScript would
   * change (1.0, integers beyond 2^53) reach the template as they are where the messages come from `parseLossless`.
   * Throws CheckpointError where none ships, and TokenizerError where it cannot be rendered: it is no template, refuses the messages, or takes
   * too many steps. transformers' apply_chat_template(tokenize=False).
   */
  applyChatTemplate(messages: readonly (ChatMessage | Json)[], options: ChatOptions = {}): string {
    return this.renderChat(messages, options).text;
  }

  /** As `applyChatTemplate`, with the parts of the text that the template marks as the assistant's. */
  renderChat(messages: readonly (ChatMessage | Json)[], options: ChatOptions = {}): RenderedChat {
    return this.#chat.render(messages, options);
  }

  #idOf(name: string): number | null {
    const text = tokenText(this.#config[name]);
    return text === null ? null : this.tokenId(text);
  }
}

/** What is found out of a tokenizer's files before it is made of them. */
interface Known {
  readonly config: TokenizerConfig;
}

function checkFiles(json: Json, config: Json, path: string): TokenizerConfig {
  checkTokenizer(json, path);
  return checkTokenizerConfig(config, path.replace(/tokenizer\.json$/, "tokenizer_config.json"));
}

function contentsOf(json: Json, config: Json, chatTemplate: string | ChatTemplates | null): string {
  return digestOf(JSON.stringify([json, config, chatTemplate]));
}

/** `chat_template` is a string, or a list of named ones. */
function templatesOf(value: unknown): ChatTemplates {
  if (typeof value === "string") return { default: value };
  if (Array.isArray(value)) return Object.fromEntries((value as readonly Json[]).map(({ name, template }) => [name, template]));
  return (value ?? {}) as ChatTemplates;
}
