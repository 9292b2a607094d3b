/** A string, and whether it is a name; or a number. */
const tokens = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** Calls `visit` with each number of a JSON text and the name that it stands under; what it returns takes the number's place. */
function overNumbers(text: string, visit: (number: string, name: string) => string): string {
  let name = "";
  return text.replace(tokens, (token: string, string: string | undefined, colon: string | undefined) => {
    if (string !== undefined && colon !== undefined) name = JSON.parse(string) as string;
    return string === undefined ? visit(token, name) : token;
  });
}

/** Every name in a JSON text. */
export function namesIn(text: string): Set<string> {
  return new Set([...text.matchAll(tokens)].flatMap(([, string, colon]) => (string && colon ? [JSON.parse(string) as string] : [])));
}

/** The names under which a JSON text has numbers that Python reads as floats: 0.0, 1e-5. */
export function floatNames(text: string): Set<string> {
  const names = new Set<string>();
  overNumbers(text, (number, name) => {
    if (/[.eE]/.test(number)) names.add(name);
    return number;
  });
  return names;
}

/**
 * A config.json. Numbers under these names are written as floats also where they are whole: transformers 5 refuses 0 where its own class
 * says float. What JSON has no numbers for is written as transformers 5 does.
 */
export function configText(config: Readonly<Record<string, unknown>>, floats: ReadonlySet<string>): string {
  const finite = (_name: string, value: unknown): unknown =>
    typeof value === "number" && !Number.isFinite(value) ? { __float__: String(value) } : value;
  const text = JSON.stringify(config, finite, 2);
  return `${overNumbers(text, (number, name) => (floats.has(name) && !/[.eE]/.test(number) ? `${number}.0` : number))}\n`;
}
