import type { Layout } from "./layout.js";
import { conversationOf, messagesOf } from "./messages.js";

/** `prompt` and `completion`, as texts or (TRL's form) as messages, of which those of the completion are learned. */
export const completion: Layout = {
  name: "prompt and completion",
  matches: (fields) => (fields.has("prompt") || fields.has("completion")) && !fields.has("chosen"),
  row(fields) {
    const { line, values } = fields;
    if (!Array.isArray(values["prompt"]) && !Array.isArray(values["completion"]))
      return { kind: "completion", line, prompt: fields.text("prompt"), completion: fields.text("completion") };
    const before = messagesOf(fields, "prompt").map(({ message }) => ({ message, isSupervised: message.role !== "assistant" }));
    return { kind: "messages", line, ...conversationOf(fields, [...before, ...messagesOf(fields, "completion")]) };
  },
};

/** `text`, all of which is learned. */
export const text: Layout = {
  name: "text",
  matches: (fields) => fields.has("text"),
  row: (fields) => ({ kind: "text", line: fields.line, text: fields.text("text") }),
};
