import { expect, test } from "vitest";
import { jsonObject } from "../../src/io/json.js";

const nested = (levels: number): string => `${'{"a":['.repeat(levels / 2)}${"]}".repeat(levels / 2)}`;

test.each<readonly [string, string, boolean]>([
  ["a hundred levels", nested(100), true],
  ["a hundred and two", nested(102), false],
  ["brackets of a text", `{"a":"${"[{".repeat(200)}"}`, true],
  ["brackets behind an escaped quote", `{"a":"\\"${"[".repeat(200)}"}`, true],
  ["levels behind a text that ends in a backslash", `{"a":"\\\\","b":${nested(102)}}`, false],
  ["many objects beside one another", `{"a":[${"{},".repeat(500)}{}]}`, true],
])("%s", (_name, text, isFine) => {
  const found = jsonObject(text);
  if (isFine) expect(found).toEqual(JSON.parse(text));
  else expect(found).toBe("JSON of more than 100 levels");
});
