import type { ChatMessage } from "../../tokenizer/chat.js";
import type { Fields } from "./fields.js";
import type { Layout, LayoutOptions } from "./layout.js";
import type { Row } from "./row.js";

/** Names of the answer beside `instruction`: Alpaca's and Dolly's; and of what the instruction is about. */
const answers = ["output", "response"];
const inputs = ["input", "context"];

const present = (fields: Fields, names: readonly string[]): string | undefined => names.find((name) => fields.has(name));

/** Alpaca's form: `instruction`, `input`, `output`, perhaps `system` and `history`; Dolly's `context` and `response` likewise. */
export const instruction: Layout = {
  name: "instructions (Alpaca)",
  matches: (fields) => fields.has("instruction") && present(fields, answers) !== undefined,
  row(fields, options) {
    const given = fields.text("instruction");
    const input = inputs.map((name) => fields.optionalText(name)).find((value) => value !== "") ?? "";
    const turns = [...historyOf(fields), { question: given, input, answer: fields.text(present(fields, answers) as string) }]; // matched
    return rowOf(fields, turns, options, alpacaPrompt);
  },
};

/** Pairs of a question and its answer, by the names that data sets give them. */
const pairs = [
  ["question", "answer"],
  ["query", "response"],
  ["input", "output"],
] as const;

/** `question` and `answer`, and pairs of other names. */
export const question: Layout = {
  name: "questions and answers",
  matches: (fields) => pairs.some((pair) => fields.has(...pair)),
  row(fields, options) {
    const [asked, answered] = pairs.find((pair) => fields.has(...pair)) as (typeof pairs)[number]; // matched
    const turns = [{ question: fields.text(asked), input: "", answer: fields.text(answered) }];
    return rowOf(fields, turns, options, ({ question: text }) => `${text}\n`);
  },
};

interface Turn {
  readonly question: string;
  readonly input: string;
  readonly answer: string;
}

/** Earlier turns: `history` is a list of [instruction, answer]. */
function historyOf(fields: Fields): Turn[] {
  return (fields.list("history") ?? []).map((pair, i) => {
    const [asked, answered] = Array.isArray(pair) ? (pair as unknown[]) : [];
    if (typeof asked !== "string" || typeof answered !== "string")
      fields.fail(`"history"[${i}] is not a pair of texts`, "Write [instruction, answer].");
    return { question: asked, input: "", answer: answered };
  });
}

function rowOf(fields: Fields, turns: readonly Turn[], { asMessages }: LayoutOptions, promptOf: (turn: Turn) => string): Row {
  const system = fields.optionalText("system");
  const last = turns.at(-1) as Turn; // of a row there is one
  if (!asMessages) {
    const before = turns.slice(0, -1).map((turn) => `${promptOf(turn)}${turn.answer}\n\n`);
    const prompt = [system === "" ? "" : `${system}\n\n`, ...before, promptOf(last)].join("");
    return { kind: "completion", line: fields.line, prompt, completion: last.answer };
  }
  const messages: ChatMessage[] = system === "" ? [] : [{ role: "system", content: system }];
  for (const { question: text, input, answer } of turns)
    messages.push({ role: "user", content: input === "" ? text : `${text}\n${input}` }, { role: "assistant", content: answer });
  // As in prompt and completion, what came before is context.
  const isSupervised = messages.map((message, i) => message.role !== "assistant" || i === messages.length - 1);
  return { kind: "messages", line: fields.line, messages, ...(turns.length > 1 && { isSupervised }) };
}

/** Stanford Alpaca's prompt (Taori et al. 2023); the answer begins on a line of its own, as the trainers that read this form have it. */
function alpacaPrompt({ question: text, input }: Turn): string {
  const head =
    input === ""
      ? "Below is an instruction that describes a task. Write a response that appropriately completes the request."
      : "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.";
  const about = input === "" ? "" : `### Input:\n${input}\n\n`;
  return `${head}\n\n### Instruction:\n${text}\n\n${about}### Response:\n`;
}
