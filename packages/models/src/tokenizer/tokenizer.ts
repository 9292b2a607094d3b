import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { CheckpointError, digestOf, eventLoopTurn, type Json, largest } from "@lowrank/tensor";
import { type ChatMessage, type ChatOptions, ChatRenderer, type ChatTemplates, type RenderedChat } from "./chat.js";
import { TokenizerError } from "./error.js";
import { alignedOffsets } from "./offsets.js";
import { checkTokenizer, checkTokenizerConfig, type TokenizerConfig } from "./schema.js";
import { merges, rememberWords, wordByWord } from "./words.js";

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
  readonly #inner: HuggingFaceTokenizer;
  readonly #config: TokenizerConfig;
  #chat: ChatRenderer;
  readonly #added: readonly string[];
  readonly #isByteLevel: boolean;
  #ends: readonly number[] = [];
  #contents: string | (() => string);

  /**
   * From the contents of tokenizer.json and tokenizer_config.json, and chat_template.jinja or the templates by name, which go before those of
   * tokenizer_config.json. Throws CheckpointError when they do not make a tokenizer.
   */
  constructor(json: Json, config: Json = {}, chatTemplate: string | ChatTemplates | null = null, path = "tokenizer.json", known?: Known) {
    this.#config = known?.config ?? checkFiles(json, config, path);
    this.#contents = () => contentsOf(json, config, chatTemplate);
    try {
      this.#inner = new HuggingFaceTokenizer(wordByWord(json), config);
    } catch (error) {
      throw new CheckpointError(`${path}: no tokenizer can be made of it (${(error as Error).message}). Fetch the checkpoint again.`, path);
    }
    if (merges(this.#inner.model)) rememberWords(this.#inner.model);
    const vocabulary = this.#inner.get_vocab(true);
    this.vocabSize = largest(vocabulary.values(), -1) + 1;
    this.longestToken = largest(
      // Ids that the vocabulary skips are tokens that are not there.
      [...vocabulary.keys()].map((token: string | undefined) => token?.length ?? 0),
      1,
    );
    this.bosTokenId = this.#idOf("bos_token");
    this.eosTokenId = this.#idOf("eos_token");
    this.padTokenId = this.#idOf("pad_token");
    this.#added = ((json["added_tokens"] ?? []) as readonly Json[]).map(({ content }) => String(content));
    this.#isByteLevel = JSON.stringify([json["pre_tokenizer"], json["decoder"]]).includes('"ByteLevel"');
    const templates = templatesOf(chatTemplate ?? this.#config.chat_template);
    this.chatTemplate = templates["default"] ?? Object.values(templates)[0] ?? null;
    const special = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"].flatMap((name) => {
      const text = tokenText(this.#config[name]);
      return text === null ? [] : [[name, text] as const];
    });
    this.#chat = new ChatRenderer(templates, Object.fromEntries(special));
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
   * Token ids of a text, with the begin and end tokens that the checkpoint's post-processor adds unless `addSpecialTokens` is false.
   * Throws TokenizerError where the tokenizer's parts do not go together.
   */
  encode(text: string, options: { readonly addSpecialTokens?: boolean } = {}): number[] {
    const { ids } = this.#tried(() => this.#inner.encode(text, { add_special_tokens: options.addSpecialTokens ?? true }));
    // What is in no token, where there is none for the unknown, is left out, as in tokenizers' Rust.
    const found = ids as (number | undefined | null)[];
    return found.includes(undefined) || found.includes(null) ? found.filter((id): id is number => typeof id === "number") : ids;
  }

  /**
   * As `encode`, and of each token the characters [start, end) of the text that it stands for, in UTF-16 units; [0, 0] for those that the
   * post-processor adds.
   */
  encodeWithOffsets(
    text: string,
    options: { readonly addSpecialTokens?: boolean } = {},
  ): { readonly ids: readonly number[]; readonly offsets: readonly (readonly [start: number, end: number])[] } {
    const plain = this.encode(text, { addSpecialTokens: false });
    const offsets = alignedOffsets(
      text,
      plain.map((id) => this.token(id) ?? ""),
      this.#isByteLevel,
      new Set(this.specialTokens),
    );
    if (options.addSpecialTokens === false) return { ids: plain, offsets };
    const ids = this.encode(text);
    const before = ids.findIndex((_, i) => plain.every((id, j) => ids[i + j] === id));
    return { ids, offsets: ids.map((_, i) => offsets[i - before] ?? [0, 0]) };
  }

  /** The texts of tokens that were added to the vocabulary, most of them special. */
  get specialTokens(): readonly string[] {
    return this.#added;
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

  /** Text of token ids; special tokens are left out unless `skipSpecialTokens` is false. Throws TokenizerError as `encode` does. */
  decode(ids: Iterable<number>, options: { readonly skipSpecialTokens?: boolean } = {}): string {
    const list = [...ids];
    if (list.length === 0) return "";
    const settings = { skip_special_tokens: options.skipSpecialTokens ?? true, clean_up_tokenization_spaces: false };
    return this.#tried(() => this.#inner.decode(list, settings));
  }

  /** The id of a token, or null where the vocabulary lacks it. */
  tokenId(token: string): number | null {
    return this.#inner.token_to_id(token) ?? null;
  }

  /** The token of an id as the vocabulary spells it, or null. */
  token(id: number): string | null {
    return this.#inner.id_to_token(id) ?? null;
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

  /** A step of the tokenizer, whose parts find out what they lack when they are used. */
  #tried<R>(run: () => R): R {
    try {
      return run();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new TokenizerError(`The tokenizer fails on this text (${reason}). Fetch the checkpoint's tokenizer.json again.`);
    }
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

/** A special token is a string, or an object with `content`. */
function tokenText(value: unknown): string | null {
  if (typeof value === "string") return value;
  const content = typeof value === "object" && value !== null ? (value as Json)["content"] : null;
  return typeof content === "string" ? content : null;
}

/** `chat_template` is a string, or a list of named ones. */
function templatesOf(value: unknown): ChatTemplates {
  if (typeof value === "string") return { default: value };
  if (Array.isArray(value)) return Object.fromEntries((value as readonly Json[]).map(({ name, template }) => [name, template]));
  return (value ?? {}) as ChatTemplates;
}
