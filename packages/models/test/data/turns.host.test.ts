import { describe, expect, it } from "vitest";
import { assistantTurns } from "../../src/data/turns.js";
import { type ChatMessage, ChatRenderer } from "../../src/tokenizer/chat.js";

/** Templates of as many makes, in our own words. */
const templates = {
  "turns that end alike": {
    text: "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}",
    specials: ["<|start|>", "<|end|>"],
  },
  "a begin token in front of the first message": {
    text: "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}<|h|>{{ m.role }}<|/h|>{{ m.content | trim }}<|e|>{% endfor %}{% if add_generation_prompt %}<|h|>assistant<|/h|>{% endif %}",
    specials: ["<s>", "<|h|>", "<|/h|>", "<|e|>"],
  },
  "no generation prompt of its own": {
    text: "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }} </s>{% endif %}{% endfor %}",
    specials: ["</s>"],
  },
  "a thought that the prompt opens and an answer has not": {
    text: "{% for m in messages %}{% if m.role == 'user' %}User:{{ m.content }}{% else %}Bot:{{ m.content }}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}Bot:<think>\n{% endif %}",
    specials: ["</s>"],
  },
  "thoughts of the last turn alone": {
    text: "{% for m in messages %}<|s|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content.split('</think>')[-1].lstrip('\n') }}<|e|>\n{% endfor %}{% if add_generation_prompt %}<|s|>assistant\n{% endif %}",
    specials: ["<|s|>", "<|e|>"],
  },
  "an end of the conversation behind the last turn": {
    text: "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
    specials: ["<|user|>", "<|assistant|>", "<|end|>", "</s>"],
  },
  "another end token behind the last turn": {
    text: "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
    specials: ["<|start|>", "<|message|>", "<|end|>", "<|return|>"],
  },
  "another end behind the last turn, of markers that are no tokens": {
    text: "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
    specials: [],
  },
  "an empty system turn in front, and a thought that is closed at once": {
    text: "<|s|>system\n<|e|>\n{% for m in messages %}<|s|>{{ m.role }}\n{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}<|e|>\n{% endfor %}{% if add_generation_prompt %}<|s|>assistant\n<think>\n{% endif %}",
    specials: ["<|s|>", "<|e|>"],
  },
  "what tools gave before the words of what called them": {
    text: "{% for m in messages %}{% if m.role != 'tool' %}<|s|>{{ m.role }}\n{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}</call>{% endfor %}{% if m.tool_calls %}{% for t in messages if t.role == 'tool' %}<gave>{{ t.content }}</gave>{% endfor %}{% endif %}{{ m.content }}<|e|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|s|>assistant\n{% endif %}",
    specials: ["<|s|>", "<|e|>"],
  },
  "an end token between turns alone": {
    text: "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if not loop.last %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ eos_token }}assistant: {% endif %}",
    specials: ["</s>"],
  },
  "neighbours joined in one turn": {
    text: "{% for m in messages %}{% if loop.first or messages[loop.index0 - 1].role != m.role %}<|t|>{{ m.role }}\n{% endif %}{{ m.content }}<|e|>\n{% endfor %}{% if add_generation_prompt %}<|t|>assistant\n{% endif %}",
    specials: ["<|t|>", "<|e|>"],
  },
  "calls of tools": {
    text: "{% for m in messages %}<|s|>{{ m.role }}\n{% if m.content %}{{ m.content }}{% endif %}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}({{ c.function.arguments | tojson }})</call>{% endfor %}<|e|>\n{% endfor %}{% if add_generation_prompt %}<|s|>assistant\n{% endif %}",
    specials: ["<|s|>", "<|e|>"],
  },
} as const;
type Make = keyof typeof templates;

const said = (role: string, content: string): ChatMessage => ({ role, content });
const [ask, answer, more, last] = [said("user", "Hi"), said("assistant", "Yes"), said("user", "And?"), said("assistant", "No")];

function turnsOf(make: Make, messages: readonly ChatMessage[]): (string | null)[] {
  const { text: template, specials } = templates[make];
  const renderer = new ChatRenderer({ default: template }, { bos_token: "<s>", eos_token: "</s>" });
  const render = (some: readonly ChatMessage[], addGenerationPrompt = false): string => renderer.render(some, { addGenerationPrompt }).text;
  const text = render(messages);
  return assistantTurns(text, messages, render, { specials, endTokens: ["</s>"] }).map((turn) =>
    turn.start === null ? null : text.slice(turn.start, turn.end),
  );
}

describe("the assistant's turns", () => {
  it.each<[string, Make, readonly ChatMessage[], readonly (string | null)[]]>([
    ["and what follows them in the turn", "turns that end alike", [ask, answer, more, last], ["Yes<|end|>\n", "No<|end|>\n"]],
    ["where the assistant begins", "turns that end alike", [answer, more, last], ["Yes<|end|>\n", "No<|end|>\n"]],
    ["where neighbours are the assistant's", "turns that end alike", [ask, answer, last], ["Yes<|end|>\n", "No<|end|>\n"]],
    ["where a user writes the markers", "turns that end alike", [said("user", "<|start|>assistant\nhu"), last], ["No<|end|>\n"]],
    ["behind a begin token", "a begin token in front of the first message", [answer, more, last], ["Yes<|e|>", "No<|e|>"]],
    [
      "whose text is trimmed",
      "a begin token in front of the first message",
      [ask, said("assistant", " a \n"), more, last],
      ["a<|e|>", "No<|e|>"],
    ],
    ["from the prompt's end", "no generation prompt of its own", [ask, answer, more, last], [" Yes </s>", " No </s>"]],
    [
      "without the opened thought",
      "a thought that the prompt opens and an answer has not",
      [ask, answer, more, last],
      ["Yes</s>", "No</s>"],
    ],
    ["without it at the start", "a thought that the prompt opens and an answer has not", [answer, more, last], ["Yes</s>", "No</s>"]],
    [
      "as the template leaves earlier ones",
      "thoughts of the last turn alone",
      [ask, said("assistant", "<think>\nhm\n</think>\n\nYes"), more, last],
      ["Yes<|e|>\n", "<think>\n\n</think>\n\nNo<|e|>\n"],
    ],
    [
      "and the conversation's end",
      "an end of the conversation behind the last turn",
      [ask, answer, more, last],
      ["Yes<|end|>\n", "No<|end|>\n</s>"],
    ],
    [
      "each with its own end",
      "another end token behind the last turn",
      [ask, answer, more, last],
      ["<|message|>Yes<|end|>", "<|message|>No<|return|>"],
    ],
    [
      "each with its own end, of markers that are no tokens",
      "another end behind the last turn, of markers that are no tokens",
      [ask, answer, more, last],
      ["<|message|>Yes<|end|>", "<|message|>No<|return|>"],
    ],
    [
      "before a last word of the user, of markers that are no tokens",
      "another end behind the last turn, of markers that are no tokens",
      [ask, answer, more],
      ["<|message|>Yes<|end|>"],
    ],
    [
      "behind a turn that the template puts in front",
      "an empty system turn in front, and a thought that is closed at once",
      [answer, more, last],
      ["</think>Yes<|e|>\n", "</think>No<|e|>\n"],
    ],
    [
      "or refused, where what a tool gave would be in one",
      "what tools gave before the words of what called them",
      [ask, { role: "assistant", content: "Wait", tool_calls: [{ function: { name: "f", arguments: {} } }] }, said("tool", "37"), last],
      [null, "No<|e|>\n"],
    ],
    ["and the end token of those between", "an end token between turns alone", [ask, answer, more, last], ["Yes</s>", "No"]],
    ["each of neighbours that share a beginning", "neighbours joined in one turn", [ask, answer, last], ["Yes<|e|>\n", "No<|e|>\n"]],
    [
      "with their calls",
      "calls of tools",
      [ask, { role: "assistant", content: null, tool_calls: [{ function: { name: "f", arguments: { a: 1 } } }] }, said("tool", "3"), last],
      ['<call>f({"a": 1})</call><|e|>\n', "No<|e|>\n"],
    ],
    ["of equal text", "turns that end alike", [ask, ask, answer, ask, answer], ["Yes<|end|>\n", "Yes<|end|>\n"]],
    ["without text", "turns that end alike", [ask, said("assistant", ""), more, last], ["<|end|>\n", "No<|end|>\n"]],
  ])("are found %s", (_, make, messages, expected) => {
    expect(turnsOf(make, messages)).toEqual(expected);
  });

  it("are not guessed where the template writes their texts nowhere", () => {
    const render = (some: readonly ChatMessage[]): string => some.map(({ role }) => `${role}.`).join("") + some.length;
    expect(assistantTurns(render([ask, answer, more]), [ask, answer, more], render, { specials: [], endTokens: [] })).toEqual([
      { message: 1, start: null },
    ]);
  });
});
