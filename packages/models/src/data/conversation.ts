import { parseLossless } from "../lossless.js";
import type { ChatMessage, ChatOptions, RenderedChat } from "../tokenizer/chat.js";
import { type Example, ignoredLabel } from "./example.js";
import { DataError } from "./formats/error.js";
import type { Conversation } from "./layouts/row.js";
import { encodingOf, type RowTokenizer, rendererOf } from "./row-tokenizer.js";
import { assistantTurns, type TurnSpan } from "./turns.js";

/** Which of the assistant's turns are learned. */
export type TrainedTurns = "all-turns" | "last-turn";

/** What is counted over the conversations of a file. */
export interface ConversationNotes {
  /** Turns that the template marks without their end token, which is learned all the same. */
  extendedTurnCount: number;
  /** Learned turns that say and call nothing, which teach to end at once. */
  emptyTurnCount: number;
  /** How often leaving out a field of messages or rows changed nothing, by its name, and the fields of which one did change something. */
  readonly unchanging: Map<string, number>;
  readonly used: Set<string>;
}

type Json = Readonly<Record<string, unknown>>;

/** How often a field is looked at that changes nothing. */
const fieldTries = 5;

/** A conversation's tokens; the loss counts those that reach into an assistant's turn. Throws DataError where no border can be proved. */
export function encodeConversation(
  row: Conversation & { readonly line: number },
  tokenizer: RowTokenizer,
  path: string,
  { notes, trainOn }: { readonly notes: ConversationNotes; readonly trainOn: TrainedTurns },
): Example {
  const { line } = row;
  const fail = (fact: string, remedy: string): never => {
    throw new DataError(`${path}:${line}: ${fact}. ${remedy}.`, path, line);
  };
  const render = rendererOf(tokenizer);
  if (!render)
    return fail(
      'the row has "messages" but the model\'s tokenizer has no chat template',
      'Use {"prompt","completion"} rows, or a checkpoint whose tokenizer_config.json has one',
    );
  if (!row.messages.some(({ role }) => role === "assistant"))
    return fail('the conversation has no turn with the role "assistant", so it teaches nothing', "Add one or remove the row");
  const renderer = new Renderer(row, render);
  let rendered: RenderedChat;
  try {
    rendered = renderer.whole();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return fail(reason.replace(/\.$/, ""), 'Rows of {"prompt","completion"} need no template');
  }
  const spans = learnedSpans(rendered, row, renderer, tokenizer, { notes, trainOn, fail });
  renderer.lookAtFields(rendered.text, notes);
  notes.emptyTurnCount += emptyTurnCount(row, trainOn);
  const { ids, offsets } = encodingOf(
    tokenizer,
    rendered.text,
    spans.flatMap(({ start, end }) => [start, end]),
    { addSpecialTokens: false },
  );
  let at = 0;
  const labels = ids.map((id, i) => {
    const [start, end] = offsets[i] ?? [0, 0];
    // Tokens go through the text in order, and so do the turns.
    while (at < spans.length && (spans[at] as TurnSpan).end <= start) at++;
    const span = spans[at];
    return span !== undefined && end > start && end > span.start ? id : ignoredLabel;
  });
  return { line, ids: [...ids], labels };
}

/** Turns of the assistant's that are learned and hold nothing but their role. */
function emptyTurnCount({ messages, isSupervised }: Conversation, trainOn: TrainedTurns): number {
  const last = messages.findLastIndex(({ role }) => role === "assistant");
  const isLearned = (i: number): boolean => isSupervised?.[i] !== false && (trainOn === "all-turns" || i === last);
  const isNothing = (value: unknown): boolean =>
    typeof value === "string" ? value.trim() === "" : Array.isArray(value) ? value.length === 0 : (value ?? null) === null;
  return messages.filter(
    (message, i) =>
      message.role === "assistant" && isLearned(i) && Object.entries(message).every(([name, value]) => name === "role" || isNothing(value)),
  ).length;
}

/** The turns that are learned, in order. */
function learnedSpans(
  { text, generation }: RenderedChat,
  { messages, isSupervised }: Conversation,
  renderer: Renderer,
  { specialTokens = [], endTokens = [] }: RowTokenizer,
  options: {
    readonly notes: ConversationNotes;
    readonly trainOn: TrainedTurns;
    readonly fail: (fact: string, remedy: string) => never;
  },
): readonly TurnSpan[] {
  const { notes, trainOn, fail } = options;
  const render = (some: readonly ChatMessage[], isAsked = false): string => renderer.text(some, isAsked);
  const turns = assistantTurns(text, messages, render, { specials: specialTokens, endTokens });
  const last = turns.at(-1)?.message;
  const isLearned = (message: number): boolean => isSupervised?.[message] !== false && (trainOn === "all-turns" || message === last);
  // The template's own marks go first, where each of them is a turn's.
  const marked = generation.length === turns.length ? generation : null;
  if (generation.length > 0 && marked === null && turns.some(({ message }) => !isLearned(message)))
    fail(
      "the chat template marks other parts as generated than the assistant's turns",
      "Leave out weights and --train-on last-turn for this model",
    );
  if (generation.length > 0 && marked === null) return generation.map(([start, end]) => ({ message: -1, start, end }));
  return turns.flatMap((turn, i) => {
    if (!isLearned(turn.message)) return [];
    const mark = marked?.[i];
    if (mark) {
      const [start, end] = mark;
      const isExtended = turn.start !== null && turn.end > end && turn.start <= end;
      if (isExtended) notes.extendedTurnCount++;
      return [{ message: turn.message, start, end: isExtended ? turn.end : end }];
    }
    if (turn.start === null)
      return fail(
        `where turn ${turn.message + 1} of the conversation, the assistant's, begins or ends cannot be found in what the chat template writes`,
        'Use {"prompt","completion"} rows, or a template with {% generation %} around what the assistant says',
      );
    return [turn];
  });
}

/** A way to give messages to the template. */
type Form = (message: ChatMessage) => ChatMessage;

/** Renders parts of a conversation, with what its row says for all of it, in the form that the template reads. */
class Renderer {
  readonly #options: ChatOptions;
  readonly #render: (messages: readonly ChatMessage[], options?: ChatOptions) => RenderedChat;
  #form: Form = withMappings;

  constructor(
    readonly row: Conversation,
    render: (messages: readonly ChatMessage[], options?: ChatOptions) => RenderedChat,
  ) {
    const { tools, documents, variables } = row;
    this.#render = render;
    this.#options = {
      ...(tools && { tools: tools as readonly object[] }), // what is no object the template refuses
      ...(documents && { documents: documents as readonly object[] }),
      ...(variables && { variables }),
    };
  }

  /**
   * The whole conversation, in the first form of which the template writes all texts: with mappings for the arguments of calls, with these as
   * JSON, with texts as parts, which templates of models that see images expect, or with empty texts for none. Throws the template's refusal of the first.
   */
  whole(): RenderedChat {
    let best: { readonly form: Form; readonly rendered: RenderedChat; readonly lost: number } | null = null;
    let refusal: unknown;
    for (const form of [withMappings, asWritten, withParts, withoutNulls]) {
      try {
        const rendered = this.#render(this.row.messages.map(form), this.#options);
        const lost = this.#lostCount(rendered.text, form);
        if (best === null || lost < best.lost) best = { form, rendered, lost };
        if (lost === 0) break;
      } catch (error) {
        refusal ??= error;
      }
    }
    if (best === null) throw refusal;
    this.#form = best.form;
    return best.rendered;
  }

  /** Some of the row's messages as text. */
  text(some: readonly ChatMessage[], addGenerationPrompt: boolean): string {
    return this.#render(some.map(this.#form), { ...this.#options, addGenerationPrompt }).text;
  }

  /** Texts that are not in the rendering, and arguments that are there as Python prints a mapping, which is not JSON. */
  #lostCount(text: string, form: Form): number {
    const isLost = ({ content }: ChatMessage): boolean => typeof content === "string" && !text.includes(content.trim());
    const printed = this.row.messages
      .map(form)
      .flatMap(callsOf)
      .filter((call) => {
        const [first] = Object.keys(argumentsOf(call) ?? {});
        return first !== undefined && text.includes(`{'${first}':`);
      });
    return this.row.messages.filter(isLost).length + printed.length;
  }

  /** Notes of each field of messages, and of what the row says for all of them, whether the text is another without it. */
  lookAtFields(text: string, notes: ConversationNotes): void {
    const look = (name: string, some: readonly ChatMessage[], options: ChatOptions): void => {
      const tries = notes.unchanging.get(name) ?? 0;
      if (notes.used.has(name) || tries >= fieldTries) return;
      try {
        if (this.#render(some, options).text === text) notes.unchanging.set(name, tries + 1);
        else notes.used.add(name);
      } catch {
        notes.used.add(name); // the template cannot do without it
      }
    };
    const messages = this.row.messages.map(this.#form);
    const names = new Set(messages.flatMap((message) => Object.keys(message)));
    for (const name of names) {
      if (name === "role" || name === "content") continue;
      const without = messages.map(({ [name]: _, ...message }) => message as ChatMessage); // its role stays
      look(name, without, this.#options);
    }
    const { variables, ...options } = this.#options;
    for (const name of ["tools", "documents"] as const) if (options[name]) look(name, messages, { ...this.#options, [name]: null });
    for (const name of Object.keys(variables ?? {})) {
      const { [name]: _, ...others } = variables as Json;
      look(`chat_template_kwargs.${name}`, messages, { ...options, variables: others });
    }
  }
}

function callsOf({ tool_calls: calls }: ChatMessage): readonly Json[] {
  return Array.isArray(calls) ? (calls as readonly Json[]) : [];
}

function argumentsOf(call: Json): object | null {
  const given = ((call["function"] ?? call) as Json)["arguments"];
  return typeof given === "object" ? given : null;
}

/** A message whose calls' arguments, given as JSON (OpenAI's form), are mappings. */
function withMappings(message: ChatMessage): ChatMessage {
  const calls = callsOf(message);
  const mapped = calls.map((call) => {
    const inner = call["function"] as Json | undefined;
    const given = (inner ?? call)["arguments"];
    const parsed = typeof given === "string" ? mappingOf(given) : null;
    if (parsed === null) return call;
    return inner ? { ...call, function: { ...inner, arguments: parsed } } : { ...call, arguments: parsed };
  });
  return mapped.some((call, i) => call !== calls[i]) ? { ...message, tool_calls: mapped } : message;
}

const asWritten: Form = (message) => message;

/** A message without a content has an empty one, which templates need that write what they are given. */
function withoutNulls(message: ChatMessage): ChatMessage {
  const mapped = withMappings(message);
  return mapped.content === null ? { ...mapped, content: "" } : mapped;
}

/** A message whose text is a list of one part. */
function withParts(message: ChatMessage): ChatMessage {
  const { content } = withMappings(message);
  return typeof content === "string" ? { ...withMappings(message), content: [{ type: "text", text: content }] } : withMappings(message);
}

function mappingOf(text: string): object | null {
  try {
    const value = parseLossless(text);
    return typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null; // a text that is not JSON stays one
  }
}
