import { JsonNumber } from "../../lossless.js";
import type { ChatMessage } from "../../tokenizer/chat.js";
import type { Fields } from "./fields.js";
import type { Layout } from "./layout.js";
import type { Conversation } from "./row.js";

type Json = Readonly<Record<string, unknown>>;

const example = 'Write [{"role":"user","content":"…"},{"role":"assistant","content":"…"}]';

/** Types of parts that are text: of chats, and of OpenAI's responses. */
const textTypes: ReadonlySet<unknown> = new Set(["text", "input_text", "output_text"]);

/** What the template is given of the row itself, so that no variable can be called so. */
const ownNames = ["messages", "tools", "documents", "add_generation_prompt"];

/** OpenAI's form: `messages`, and beside them `tools`, `documents` and `chat_template_kwargs`. */
export const messages: Layout = {
  name: "messages",
  matches: (fields) => fields.has("messages"),
  row: (fields) => ({ kind: "messages", line: fields.line, ...conversationOf(fields, messagesOf(fields, "messages")) }),
};

/** A message, and whether its turn is learned where it is the assistant's. */
export interface Turn {
  readonly message: ChatMessage;
  readonly isSupervised: boolean;
}

/** The conversation of some turns with what the row says for all of them. */
export function conversationOf(fields: Fields, turns: readonly Turn[]): Conversation {
  const tools = fields.list("tools");
  const documents = fields.list("documents");
  const variables = variablesOf(fields);
  return {
    messages: turns.map(({ message }) => message),
    ...(turns.every(({ isSupervised }) => isSupervised) ? {} : { isSupervised: turns.map(({ isSupervised }) => isSupervised) }),
    ...(tools && { tools }),
    ...(documents && { documents }),
    ...(variables && { variables }),
  };
}

/** Further names for the template. Throws DataError for one that the template is given already. */
function variablesOf(fields: Fields): Json | undefined {
  const variables = fields.object("chat_template_kwargs");
  const own = ownNames.find((name) => variables && name in variables);
  if (own === "add_generation_prompt")
    fields.fail(`"chat_template_kwargs" has "${own}"`, "Rows are learned as conversations that are over: leave it out.");
  if (own !== undefined) fields.fail(`"chat_template_kwargs" has "${own}"`, `Write "${own}" as a field of the row.`);
  return variables;
}

/** The messages of a field. Throws DataError unless it is a list of messages. */
export function messagesOf(fields: Fields, name: string): Turn[] {
  const list = fields.list(name);
  if (!list) fields.fail(`"${name}" is not a list of {"role","content"}`, `${example}.`);
  return list.map((item, i) => turnOf(item, `"${name}"[${i}]`, fields));
}

function turnOf(item: unknown, place: string, fields: Fields): Turn {
  if (typeof item !== "object" || item === null || Array.isArray(item))
    fields.fail(`${place} is not an object with "role" and "content"`, `${example}.`);
  const { weight, train, ...message } = item as Json;
  if (typeof message["role"] !== "string") fields.fail(`${place} has no "role"`, `${example}.`);
  const isAssistant = message["role"] === "assistant";
  return {
    message: { ...message, role: message["role"], content: contentOf(message, place, fields) },
    isSupervised: isSupervised({ weight, train }, isAssistant, place, fields),
  };
}

/** The text of a message: parts of text are joined, and nothing is a content where tools are called. */
function contentOf(message: Json, place: string, fields: Fields): string | null {
  const content = message["content"] ?? null;
  if (typeof content === "string") return content;
  if (content === null) {
    const calls = message["tool_calls"] ?? message["function_call"] ?? message["thinking"] ?? message["reasoning_content"];
    if (message["role"] === "assistant" && calls) return null;
    fields.fail(`${place} has no "content"`, 'Give it a text; only an assistant\'s message with "tool_calls" may be without.');
  }
  if (!Array.isArray(content)) fields.fail(`the "content" of ${place} is neither a text nor a list of parts`, `${example}.`);
  return content
    .map((part: unknown) => {
      if (typeof part === "string") return part;
      const { type, text } = (part ?? {}) as { readonly type?: unknown; readonly text?: unknown };
      if (typeof text === "string" && (type === undefined || textTypes.has(type))) return text;
      return fields.fail(
        `the "content" of ${place} has a part of type ${JSON.stringify(type ?? null)}`,
        'Models here read text alone: keep parts {"type":"text","text"}.',
      );
    })
    .join("");
}

/** OpenAI's and Mistral's `weight` of 0 or 1, and axolotl's `train`, of an assistant's message. */
export function isSupervised(
  marks: { readonly weight: unknown; readonly train: unknown },
  isAssistant: boolean,
  place: string,
  fields: Fields,
): boolean {
  // 1.0 is kept apart from 1 for templates; here they are one.
  const weight = marks.weight instanceof JsonNumber ? Number(marks.weight) : (marks.weight ?? null);
  const train = marks.train ?? null;
  if (weight !== null && weight !== 0 && weight !== 1)
    fields.fail(`the "weight" of ${place} is ${JSON.stringify(weight)}`, "A turn is learned or not: write 0 or 1.");
  if (train !== null && typeof train !== "boolean") fields.fail(`"train" of ${place} is ${JSON.stringify(train)}`, "Write true or false.");
  if (!isAssistant && (weight === 1 || train === true))
    fields.fail(`${place} is to be learned and not the assistant's`, "Only assistant messages have a weight of 1.");
  return weight !== 0 && train !== false;
}
