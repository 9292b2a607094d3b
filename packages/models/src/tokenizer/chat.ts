import { CheckpointError, type Json } from "@lowrank/tensor";
import { ChatTemplate } from "./chat-template.js";

/** One turn of a conversation; further fields (`tool_calls`, `name`, `reasoning_content` …) reach the chat template as they are. */
export interface ChatMessage {
  readonly role: string;
  /** Text, parts such as `{ type: "text", text }`, or null beside calls of tools. */
  readonly content?: string | null | readonly object[];
  readonly [field: string]: unknown;
}

/** What a chat template is given beside the messages. */
export interface ChatOptions {
  /** Whether the text ends with what comes before an answer of the assistant. */
  readonly addGenerationPrompt?: boolean;
  /** JSON schemas of the tools that the model may call. */
  readonly tools?: readonly object[] | null;
  /** Texts that the model shall answer from. */
  readonly documents?: readonly object[] | null;
  /** Further names that the template sees, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** What `strftime_now` takes for the present; the clock where it is absent. */
  readonly now?: Date | (() => Date);
  /** The name of a template, where the checkpoint has several. "tool_use" is taken where there are tools, else "default". */
  readonly template?: string;
}

/** A conversation as text. */
export interface RenderedChat {
  readonly text: string;
  /**
   * The parts of the text that the template marks with `{% generation %}`, in order, as [start, end) in UTF-16 units: what the assistant says.
   * Empty where the template has no such marks.
   */
  readonly generation: readonly (readonly [start: number, end: number])[];
}

/** The chat templates of a checkpoint by name. */
export type ChatTemplates = Readonly<Record<string, string>>;

/** Renders conversations with the templates of a checkpoint, as transformers' apply_chat_template(tokenize=False) does. */
export class ChatRenderer {
  readonly #parsed = new Map<string, ChatTemplate>();

  /** `special` holds the texts of bos_token and the like, where the checkpoint has them. */
  constructor(
    readonly templates: ChatTemplates,
    readonly special: Readonly<Record<string, string>>,
  ) {}

  /**
   * Throws CheckpointError where the checkpoint has no such template, and TokenizerError where it cannot be rendered: it is no template,
   * refuses the messages, or takes too many steps.
   */
  render(messages: readonly (ChatMessage | Json)[], options: ChatOptions): RenderedChat {
    const { addGenerationPrompt = false, tools = null, documents = null, variables = {}, now = () => new Date() } = options;
    const text = this.#choose(options.template, tools !== null);
    const template = this.#parsed.get(text) ?? new ChatTemplate(text);
    this.#parsed.set(text, template);
    const given = { ...this.special, messages: withThoughts(messages, text), tools, documents, add_generation_prompt: addGenerationPrompt };
    return template.renderSpans({ ...given, ...variables }, typeof now === "function" ? now : () => now);
  }

  #choose(name: string | undefined, hasTools: boolean): string {
    const names = Object.keys(this.templates);
    const fail = (fact: string, remedy: string): never => {
      throw new CheckpointError(`${fact}. ${remedy}.`, "tokenizer_config.json");
    };
    if (names.length === 0)
      fail('The tokenizer has no chat template, so {"messages"} cannot be rendered', 'Use {"prompt", "completion"} rows or a chat model');
    const chosen = name ?? (hasTools && Object.hasOwn(this.templates, "tool_use") ? "tool_use" : "default");
    const text = Object.hasOwn(this.templates, chosen) ? this.templates[chosen] : undefined;
    return text ?? fail(`The tokenizer has no chat template "${chosen}"`, `Name one of ${names.map((item) => `"${item}"`).join(", ")}`);
  }
}

/**
 * The messages with `reasoning_content` under the name that the template has for it: templates of gpt-oss and LFM2.5 read `thinking`.
 * transformers 5.24 does so.
 */
function withThoughts(messages: readonly (ChatMessage | Json)[], template: string): readonly (ChatMessage | Json)[] {
  if (template.includes("reasoning_content") || !/\.thinking\b|["']thinking["']/.test(template)) return messages;
  return messages.map((message) => {
    const { reasoning_content: thoughts, thinking } = (message ?? {}) as Json;
    return thoughts === undefined || thinking !== undefined ? message : { ...message, thinking: thoughts };
  });
}
