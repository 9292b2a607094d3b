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
  return isDeep(value) ? `JSON of more than ${deepest} levels` : (value as Json);
}

function isDeep(root: object): boolean {
  let level: object[] = [root];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth === deepest) return true;
    const below: object[] = [];
    for (const value of level) for (const item of Object.values(value)) if (typeof item === "object" && item !== null) below.push(item);
    level = below;
  }
  return false;
}
