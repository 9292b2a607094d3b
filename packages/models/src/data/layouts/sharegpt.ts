import { parseLossless } from "../../lossless.js";
import type { Fields } from "./fields.js";
import type { Layout } from "./layout.js";
import { conversationOf, isSupervised, messagesOf, type Turn } from "./messages.js";

type Json = Readonly<Record<string, unknown>>;

/** ShareGPT's names of who speaks, as its exports and the trainers that read them write them. */
const roles: ReadonlyMap<string, string> = new Map(
  Object.entries({
    system: "system",
    human: "user",
    user: "user",
    gpt: "assistant",
    chatgpt: "assistant",
    assistant: "assistant",
    function_call: "assistant",
    tool_call: "assistant",
    observation: "tool",
    function_response: "tool",
    tool: "tool",
    tool_response: "tool",
  }),
);

const fieldNames = ["conversations", "conversation"];

/** ShareGPT's form: `conversations` of `from` and `value`, beside them perhaps `system` and `tools`. */
export const shareGpt: Layout = {
  name: "ShareGPT conversations",
  matches: (fields) => fieldNames.some((name) => fields.has(name)),
  row(fields) {
    const name = fields.has("conversations") ? "conversations" : "conversation";
    const list = fields.list(name) ?? [];
    const isOpenAi = list.every((item) => typeof item === "object" && item !== null && "role" in item);
    const turns = list.length > 0 && isOpenAi ? messagesOf(fields, name) : list.map((item, i) => turnOf(item, `"${name}"[${i}]`, fields));
    if (turns.length === 0) fields.fail(`"${name}" holds no turn`, "Remove the row.");
    const system = fields.optionalText("system");
    const first: Turn[] = system === "" ? [] : [{ message: { role: "system", content: system }, isSupervised: true }];
    return { kind: "messages", line: fields.line, ...conversationOf(fields, [...first, ...turns]) };
  },
};

function turnOf(item: unknown, place: string, fields: Fields): Turn {
  const { from, value, weight, train, ...others } = (item ?? {}) as Json;
  if (typeof from !== "string" || typeof value !== "string")
    fields.fail(`${place} is not {"from","value"} with texts`, 'Write {"from":"human","value":"…"} and {"from":"gpt","value":"…"}.');
  const speaker = from.toLowerCase();
  const role = roles.get(speaker);
  if (role === undefined) fields.fail(`${place} is from ${JSON.stringify(from)}`, `Known are ${[...roles.keys()].join(", ")}.`);
  const isCall = speaker === "function_call" || speaker === "tool_call";
  const said = isCall ? { content: null, tool_calls: callsOf(value, `the ${speaker} of ${place}`, fields) } : { content: value };
  return { message: { ...others, role, ...said }, isSupervised: isSupervised({ weight, train }, role === "assistant", place, fields) };
}

/** The calls that a turn writes as JSON: one {"name","arguments"}, or a list of them. */
function callsOf(value: string, place: string, fields: Fields): Json[] {
  let parsed: unknown;
  try {
    parsed = parseLossless(value);
  } catch {
    fields.fail(`${place} is not JSON`, 'Write {"name":"…","arguments":{ … }}.');
  }
  return (Array.isArray(parsed) ? parsed : [parsed]).map((call: unknown) => {
    const { name, arguments: given } = (call ?? {}) as Json;
    if (typeof name !== "string") fields.fail(`${place} has no "name"`, 'Write {"name":"…","arguments":{ … }}.');
    return { type: "function", function: { name, arguments: given ?? {} } };
  });
}
