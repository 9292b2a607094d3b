import type { Row } from "./layouts/row.js";

/** Characters that are always encoded: shorter texts are not worth a thought. */
const alwaysEncoded = 2 ** 20;
/** How many times the longest token may stand for more characters than it has, where a tokenizer drops some of them before (white space, accents). */
const slack = 16;

/** Characters of which `limit` tokens never hold more, however a text is split; `longestToken` in characters. */
export function characterLimit(limit: number, longestToken: number = Number.POSITIVE_INFINITY): number {
  return Math.max(alwaysEncoded, slack * limit * longestToken);
}

/** Characters of all texts of a row. */
export function characterCount(row: Row): number {
  switch (row.kind) {
    case "completion":
      return row.prompt.length + row.completion.length;
    case "text":
      return row.text.length;
    case "messages":
      return row.messages.reduce((sum, { content }) => sum + (content?.length ?? 0), 0);
  }
}

/** A row whose texts have at most so many characters each, of which more would not reach into the tokens that are kept. */
export function shortened(row: Row, limit: number): Row {
  switch (row.kind) {
    case "completion":
      return { ...row, prompt: row.prompt.slice(0, limit), completion: row.completion.slice(0, limit) };
    case "text":
      return { ...row, text: row.text.slice(0, limit) };
    case "messages":
      return { ...row, messages: row.messages.map((message) => ({ ...message, content: message.content?.slice(0, limit) ?? null })) };
  }
}
