/** A JSON object: fields by name, whatever they are. */
export type Json = Readonly<Record<string, unknown>>;

/** Objects and lists within one another. Files of models have some ten levels; what walks a value level by level would overflow the stack. */
const deepest = 100;

/** The object that a JSON text holds; or, where it holds none, what is wrong with it, for an error. */
export function jsonObject(text: string): Json | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return `no valid JSON (${error instanceof Error ? error.message : String(error)})`;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return "JSON, but not an object";
  return isDeep(text) ? `JSON of more than ${deepest} levels` : (value as Json);
}

/** Of a text that is JSON. Its brackets are counted: the lists of all values would be longer than the text. */
function isDeep(text: string): boolean {
  const [quote, backslash, open, close] = [0x22, 0x5c, 0x5b, 0x5d];
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === quote) {
      // To the quote that ends it; a character after a backslash is none.
      for (at++; text.charCodeAt(at) !== quote; at++) if (text.charCodeAt(at) === backslash) at++;
      // Braces are brackets with one bit more.
    } else if ((code & ~0x20) === open) {
      if (++depth > deepest) return true;
    } else if ((code & ~0x20) === close) depth--;
  }
  return false;
}
