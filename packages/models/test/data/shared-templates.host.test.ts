import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { assistantTurns } from "../../src/data/turns.js";
import { parseLossless } from "../../src/lossless.js";
import { type ChatMessage, type ChatOptions, ChatRenderer } from "../../src/tokenizer/chat.js";

const folder = fileURLToPath(new URL("../../../../../shared/templates/", import.meta.url));
const isThere = existsSync(`${folder}cases.json`);
if (!isThere) process.stderr.write("shared-templates: skipped, ../shared/templates is not there\n");

interface Conversation {
  readonly name: string;
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly object[];
  readonly documents?: readonly object[];
  readonly variables?: Readonly<Record<string, unknown>>;
}
const conversations = isThere
  ? (parseLossless(readFileSync(`${folder}cases.json`, "utf8")) as { readonly conversations: readonly Conversation[] }).conversations
  : [];
const names = isThere ? readdirSync(folder).filter((name) => name.endsWith(".jinja")) : [];

/** Where no border is proved, each looked at: what was said is not written at all, joined to its neighbour, or behind what the tools gave. */
const unproved: Readonly<Record<string, readonly string[]>> = {
  "diffusion_gemma.jinja": ["two assistant turns in a row", "two calls at once"],
  "gemma4.jinja": ["two calls at once"],
  "gemma4_v3.jinja": ["two calls at once"],
  "gemma4_v4.jinja": ["two calls at once"],
  "gptoss.jinja": ["two calls at once"],
  "gptoss_training.jinja": ["two calls at once"],
  "idefics3.jinja": ["greeting by the assistant"],
  "smolvlm.jinja": ["greeting by the assistant"],
  "phi3.jinja": ["tool called and answered"],
};

const isRefused = (error: unknown): boolean => error instanceof Error && error.name === "TokenizerError";
const said = ({ content }: ChatMessage): string => (typeof content === "string" ? content.trim() : "");

describe.skipIf(!isThere)("the assistant's turns in today's templates", () => {
  test.each(names)("%s: hold their own words and no one else's, or are not proved", (name) => {
    const renderer = new ChatRenderer({ default: readFileSync(folder + name, "utf8") }, { bos_token: "<s>", eos_token: "</s>" });
    const missed: string[] = [];
    for (const { name: called, messages, tools, documents, variables } of conversations) {
      const options: ChatOptions = { ...(tools && { tools }), ...(documents && { documents }), ...(variables && { variables }) };
      const render = (some: readonly ChatMessage[], addGenerationPrompt = false): string =>
        renderer.render(some, { ...options, addGenerationPrompt }).text;
      let text = "";
      try {
        text = render(messages);
      } catch (error) {
        if (!isRefused(error)) throw error;
        continue;
      }
      const turns = assistantTurns(text, messages, render, { specials: [], endTokens: ["</s>"] });
      if (turns.some(({ start }) => start === null)) missed.push(called);
      for (const turn of turns) {
        if (turn.start === null) continue;
        const learned = text.slice(turn.start, turn.end);
        const own = messages[turn.message] as ChatMessage; // a turn is of one of them
        const answer = said(own).split("</think>").at(-1)?.trim() ?? "";
        // Some templates of models that see images write no text that is not a part of a list.
        if (text.includes(answer)) expect(learned, `${called}, turn ${turn.message + 1}`).toContain(answer);
        for (const other of messages) {
          const theirs = said(other);
          if (other.role !== "assistant" && theirs.length > 3 && !answer.includes(theirs))
            expect(learned, `${called}, turn ${turn.message + 1}`).not.toContain(theirs);
        }
      }
    }
    expect(missed).toEqual(unproved[name] ?? []);
  });
});
