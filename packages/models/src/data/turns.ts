import { commonPrefix } from "./common-prefix.js";

/** A conversation's text in which an assistant's turn lies from `start` up to `end`, in UTF-16 units. */
export interface TurnSpan {
  /** The message's position. */
  readonly message: number;
  readonly start: number;
  readonly end: number;
}

/** An assistant's turn, or that its borders are not proved. */
export type Turn = TurnSpan | { readonly message: number; readonly start: null };

/** What of a message counts here. */
interface Message {
  readonly role: string;
  readonly content?: unknown;
  readonly tool_calls?: unknown;
}

type Json = Readonly<Record<string, unknown>>;

/** Renders some of the conversation's messages. Throws where the template refuses them. */
export type Render<M> = (messages: readonly M[], addGenerationPrompt?: boolean) => string;

/**
 * The assistant's turns in the text of a conversation: each from where the generation prompt ends to the turn's end, the end token and what
 * the template writes after it in that turn included. Borders come from renderings of the conversation's beginnings where these begin the
 * text; else from renderings in which one message's text is a mark, so that what stands around it is found again in the text. `specials` are
 * the texts of special tokens, of which no border cuts one, and `endTokens` those that end a generation. Null for a turn whose borders cannot be proved.
 */
export function assistantTurns<M extends Message>(
  text: string,
  messages: readonly M[],
  render: Render<M>,
  { specials, endTokens }: { readonly specials: readonly string[]; readonly endTokens: readonly string[] },
): Turn[] {
  const borders = new Borders(text, messages, render, [...new Set([...specials, ...markersOf(text, messages, render)])], endTokens);
  let last = 0;
  return messages.flatMap((message, i): readonly Turn[] => {
    if (message.role !== "assistant") return [];
    const end = borders.end(i);
    const start = end === null ? null : borders.start(i, last);
    if (start === null || end === null || start < last || start >= end || borders.holdsOthers(i, start, end))
      return [{ message: i, start: null }];
    last = end;
    return [{ message: i, start, end }];
  });
}

/** What looks like a special token in a text: a template may be used with a tokenizer whose vocabulary lacks its markers. */
const marker = /<(?:[|｜][^<>\s]*|[^<>\s]*[|｜])>/g;

/** The markers of a conversation's text, and of what ends each of its turns where that is the last. */
function markersOf<M extends Message>(text: string, messages: readonly M[], render: Render<M>): string[] {
  const first = messages.findIndex(({ role }) => role === "assistant") + 1;
  const shorter = tried(() => render(messages.slice(0, first))) ?? "";
  return [...text.matchAll(marker), ...shorter.matchAll(marker)].map(([found]) => found);
}

/** A rendering, or null where the template refuses the messages. What is no refusal is a mistake, and thrown. */
function tried(render: () => string): string | null {
  try {
    return render();
  } catch (error) {
    if (!(error instanceof Error && error.name === "TokenizerError")) throw error;
    return null;
  }
}

/** A rendering in which a message's text is a mark: what stands before it, and after it. */
interface Marked {
  readonly before: string;
  readonly after: string;
}

class Borders<M extends Message> {
  readonly #mark: string;
  readonly #known = new Map<string, string | null>();

  constructor(
    readonly text: string,
    readonly messages: readonly M[],
    readonly render: Render<M>,
    readonly specials: readonly string[],
    readonly endTokens: readonly string[],
  ) {
    let mark = "\uE0FA\uF0FE";
    while (text.includes(mark)) mark += "\uE0FB";
    this.#mark = mark;
  }

  /** Where what the model is to write begins: behind the generation prompt of turn i. `from`: where the turn before ends. */
  start(i: number, from: number): number | null {
    const asked = this.#beginning(i, true);
    if (asked !== null && i > 0 && this.text.startsWith(asked)) return asked.length;
    const opening = this.#generationPrompt(i);
    if (opening === null) return null;
    const before = this.#marked(i)?.before ?? null;
    const isProved = (start: number): boolean => before === null || this.text.startsWith(before.slice(0, start));
    if (before !== null && opening !== "") {
      const found = before.lastIndexOf(opening);
      const start = found + opening.length;
      if (found >= Math.max(from, this.#textEnd(i - 1) ?? 0) && isProved(start)) return start;
    }
    // The turn begins otherwise than it is asked for: as much of that as it has. The first one may have something before it.
    if (i === 0 && before !== null) {
      const start = longestBeginning(before, opening, this.specials);
      if (start !== null && isProved(start)) return start;
    }
    const turnStart = this.#turnEnd(i - 1);
    if (turnStart === null || turnStart < from) return null;
    const shared = commonPrefix(opening, (before ?? this.text).slice(turnStart), this.specials);
    if ((shared > 0 || opening === "") && isProved(turnStart + shared)) return turnStart + shared;
    const own = commonPrefix(opening, this.text.slice(turnStart), this.specials);
    if (own > 0) return turnStart + own;
    // Neighbours of one role may share a beginning; the first message may have something before it.
    if (i > 0 && this.messages[i - 1]?.role === "assistant") return turnStart;
    return before !== null && isProved(before.length) && endsWithBeginning(before.slice(turnStart), opening) ? before.length : null;
  }

  /** Whether a part of the text that should be turn i has what others said in it: templates may write what tools gave before what called them. */
  holdsOthers(i: number, start: number, end: number): boolean {
    const part = this.text.slice(start, end);
    return this.messages.some(({ role, content }, j) => {
      if (role === "assistant" || j === i || typeof content !== "string") return false;
      const said = content.trim();
      if (said === "" || !part.includes(said)) return false;
      const before = this.#marked(j)?.before ?? null;
      return before !== null && before.length >= start && before.length < end && this.text.startsWith(before);
    });
  }

  /** Where turn i ends. */
  end(i: number): number | null {
    const end = this.#turnEnd(i);
    return end === null ? null : Math.max(end, this.#endTokenAfter(end));
  }

  /** Where the template begins to write the message after i. */
  #turnEnd(i: number): number | null {
    if (i < 0) return 0;
    if (i === this.messages.length - 1) return this.text.length;
    const through = this.#beginning(i + 1, false);
    if (through !== null && this.text.startsWith(through)) return through.length;
    const textEnd = this.#textEnd(i);
    if (textEnd === null) return null;
    const rest = this.text.slice(textEnd);
    // What follows the text where the conversation ends with it: its end, and perhaps what ends a conversation.
    const closing = this.#marked(i, i + 1)?.after ?? null;
    if (closing !== null) {
      const shared = commonPrefix(closing, rest, this.specials);
      if (shared > 0 || closing === "") return textEnd + shared;
    }
    return this.#specialEnd(textEnd);
  }

  /** The end of a special token right behind a text, and of the white space up to the next one: how turns end where that of the last differs. */
  #specialEnd(textEnd: number): number | null {
    const special = this.#specialAt(textEnd);
    if (special === null) return null;
    const end = textEnd + special.length;
    const next = end + (/^\s*/.exec(this.text.slice(end))?.[0].length ?? 0);
    return this.#specialAt(next) === null && next < this.text.length ? null : next;
  }

  /** Where an end token ends that the template writes between turns alone, and not behind the last. */
  #endTokenAfter(end: number): number {
    const closing = this.text.slice(0, end).trimEnd();
    // A turn that ends with a special token, as most do, is whole.
    if (this.specials.some((special) => special !== "" && closing.endsWith(special))) return end;
    const token = this.endTokens.find((one) => one !== "" && this.text.startsWith(one, end));
    return token === undefined ? end : end + token.length;
  }

  #specialAt(at: number): string | null {
    return this.specials.find((special) => special !== "" && this.text.startsWith(special, at)) ?? null;
  }

  /** Where the text of message i ends. */
  #textEnd(i: number): number | null {
    const after = i < 0 ? null : (this.#marked(i)?.after ?? null);
    return after !== null && this.text.endsWith(after) ? this.text.length - after.length : null;
  }

  /** What asks for turn i, in the text of what comes before or in that of the whole conversation. */
  #generationPrompt(i: number): string | null {
    const [plain, asked] = [this.#beginning(i, false), this.#beginning(i, true)];
    if (i > 0 && plain !== null && asked !== null) return asked.slice(commonPrefix(plain, asked, this.specials));
    const whole = this.#beginning(this.messages.length, true);
    return whole === null ? null : whole.slice(commonPrefix(this.text, whole, this.specials));
  }

  /** The first `count` messages as text; null where the template refuses them. */
  #beginning(count: number, isAsked: boolean): string | null {
    return this.#tried(`${count} ${isAsked}`, () => this.render(this.messages.slice(0, count), isAsked));
  }

  /** The first `count` messages with a mark for the text of message i, or for what it calls; null where neither is found again. */
  #marked(i: number, count = this.messages.length): Marked | null {
    const message = this.messages[i];
    for (const { message: marked, original } of message ? marksOf(message, this.#mark) : []) {
      const text = this.#tried(`${count} ${i} ${original}`, () =>
        this.render(this.messages.slice(0, count).map((one, j) => (j === i ? marked : one))),
      );
      const [before, ...after] = text?.split(this.#mark) ?? [];
      // A template may write a text twice, such as a call's name above what it gave.
      if (before !== undefined && after.length > 0) return { before, after: after.join(original) };
    }
    return null;
  }

  #tried(key: string, render: () => string): string | null {
    const before = this.#known.get(key);
    if (before !== undefined) return before;
    const text = tried(render); // what is refused of a part of a conversation says nothing
    this.#known.set(key, text);
    return text;
  }
}

/** A message with a mark for its text, and with one for the name of what it calls first. */
function marksOf<M extends Message>(message: M, mark: string): { readonly message: M; readonly original: string }[] {
  const { content, tool_calls: calls } = message;
  const found: { message: M; original: string }[] = [];
  if (typeof content === "string" && content.trim() !== "") found.push({ message: { ...message, content: mark }, original: content });
  const [first, ...others] = Array.isArray(calls) ? (calls as readonly Json[]) : [];
  const called = (first?.["function"] ?? first) as Json | undefined;
  const name = called?.["name"];
  if (!first || typeof name !== "string") return found;
  const marked = called === first ? { ...first, name: mark } : { ...first, function: { ...called, name: mark } };
  return [...found, { message: { ...message, tool_calls: [marked, ...others] }, original: name }];
}

/** Where the longest beginning of `opening` that a text has ends in it, a special token at least; null where it has none. */
function longestBeginning(text: string, opening: string, specials: readonly string[]): number | null {
  const found = specials.filter((special) => special !== "" && opening.startsWith(special));
  if (found.length === 0) return null;
  let best = 0;
  let end = null;
  for (let at = 0; at < text.length; at++) {
    if (!found.some((special) => text.startsWith(special, at))) continue;
    const shared = commonPrefix(opening, text.slice(at), specials);
    if (shared >= best) [best, end] = [shared, at + shared];
  }
  return end;
}

/** Whether the end of a text is a beginning of another. */
function endsWithBeginning(text: string, other: string): boolean {
  for (let length = Math.min(text.length, other.length); length > 0; length--) if (text.endsWith(other.slice(0, length))) return true;
  return false;
}
