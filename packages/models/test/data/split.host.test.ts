import { describe, expect, test } from "vitest";
import {
  DataError,
  type DataSet,
  type Examples,
  encodeRows,
  foldedKey,
  foldedText,
  mixDataSets,
  parseRows,
  splitDataSet,
} from "../../src/data/index.js";
import { parseLossless, stringifyLossless } from "../../src/lossless.js";
import { characters } from "./characters.js";

/** A data set of texts, and what each says. */
function setOf(texts: readonly string[]): { readonly data: DataSet; readonly keys: readonly string[] } {
  const rows = parseRows(texts.map((text) => JSON.stringify({ text })).join("\n"), "x");
  return { data: encodeRows(rows, "x", characters, { context: 99 }), keys: rows.map(foldedText) };
}
const linesOf = ({ examples }: Pick<DataSet<Examples>, "examples">): number[] => Array.from(examples, ({ line }) => line);

describe("rows that are held out", () => {
  const letters = Array.from({ length: 20 }, (_, i) => String.fromCharCode(97 + i));

  test.each([0.1, 0.25, 0.5, 0.9])("are a share of %d, chosen by the seed, and each row is on one side", (share) => {
    const { data, keys } = setOf(letters);
    const sides = [1, 1, 2].map((seed) => splitDataSet(data, keys, { share, seed }));
    for (const { data: kept, heldOut } of sides) {
      expect(linesOf(heldOut)).toHaveLength(Math.round(share * 20));
      expect([...linesOf(kept), ...linesOf(heldOut)].sort((a, b) => a - b)).toEqual(letters.map((_, i) => i + 1));
      expect(kept.tokenCount + heldOut.tokenCount).toBe(data.tokenCount);
    }
    expect(linesOf(sides[1]?.heldOut as DataSet<Examples>)).toEqual(linesOf(sides[0]?.heldOut as DataSet<Examples>));
    expect(linesOf(sides[2]?.heldOut as DataSet<Examples>)).not.toEqual(linesOf(sides[0]?.heldOut as DataSet<Examples>));
  });

  test.each([1, 2, 3, 4, 5, 6, 7, 8])("say nothing that those say which are learned, seed %i", (seed) => {
    const forms = ["Straße  1", "STRASSE 1", " strasse\t1", "ﬁne", "FINE", "fine", "Ὀδός", "ὈΔΌΣ", "a", "b", "c", "d", "e", "f", "g", "h"];
    const { data, keys } = setOf(forms);
    const { data: kept, heldOut } = splitDataSet(data, keys, { share: 0.3, seed });
    const said = new Set(linesOf(kept).map((line) => keys[line - 1]));
    expect(linesOf(heldOut).filter((line) => said.has(keys[line - 1]))).toEqual([]);
    expect(linesOf(heldOut).length).toBeGreaterThan(0);
    expect(linesOf(heldOut).length).toBeLessThanOrEqual(5);
  });

  test("are few where most rows say the same", () => {
    const { data, keys } = setOf([..."aaaaaaaaab"]);
    for (const seed of [1, 2, 3, 4]) expect(linesOf(splitDataSet(data, keys, { share: 0.1, seed }).heldOut)).toEqual([10]);
  });

  test.each<[string, readonly string[]]>([
    ["one row", ["a"]],
    ["rows that all say the same", ["a", "A ", "a"]],
  ])("are refused of %s, as a user's mistake", (_, texts) => {
    const { data, keys } = setOf(texts);
    expect(() => splitDataSet(data, keys, { share: 0.5, seed: 1 })).toThrow(DataError);
    expect(() => splitDataSet(data, keys, { share: 0.5, seed: 1 })).toThrow(/too few to hold 0.5 of them out/);
  });
});

test.each([
  ["case", "A b", "a B", true],
  ["white space", "a\t b\n", " a b", true],
  ["the form of characters", "①Ａé", "1Ae\u0301", true],
  ["letters that have no other size of one sign", "Maße ſo", "MASSE SO", true],
  ["words", "a b", "ab", false],
  ["accents", "e", "é", false],
])("texts that differ by %s: %j and %j", (_, a, b, isSame) => expect(foldedKey(a) === foldedKey(b)).toBe(isSame));

test.each<[number, number]>([
  [0.1, 1],
  [0.34, 1],
  [0.5, 2],
  [1, 3],
  [2.34, 7],
])("a file of three rows with a weight of %d gives %i", (weight, count) =>
  expect(mixDataSets([{ data: setOf(["a", "b", "c"]).data, weight }]).examples.length).toBe(count),
);

test.each([
  '{"a":1.0,"b":[12345678901234567890,1e3,-0,2.5],"10":{"2":null,"1":"é\\u2028\\""}}',
  '{"messages":[{"role":"assistant","content":null,"tool_calls":[{"function":{"arguments":{"x":1.0,"9007199254740993":9007199254740993}}}]}]}',
  "[]",
])("JSON that is read without a loss is written so: %s", (text) =>
  expect(stringifyLossless(parseLossless(text))).toBe(text.replace("\\u2028", "\u2028")),
);

test("calls with integers of any size have a key of what they say", () => {
  const row = (id: bigint) =>
    ({ kind: "messages", line: 1, messages: [{ role: "assistant", content: null, tool_calls: [{ id }] }] }) as const;
  expect(foldedText(row(12345678901234567890n))).not.toBe(foldedText(row(12345678901234567891n)));
});
