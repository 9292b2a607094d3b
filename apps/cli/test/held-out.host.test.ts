import type { DataSet, Example, Examples } from "@lowrank/models";
import { describe, expect, it } from "vitest";
import { splitRows } from "../src/compare/held-out.js";

const dataOf = (count: number): DataSet<Examples> => {
  const examples: Example[] = Array.from({ length: count }, (_, line) => ({ line, ids: [1, 2], labels: [1, 2] }));
  const notes = { conversationCount: 0, splitCount: 0, splitBorderCount: 0, extendedTurnCount: 0, emptyTurnCount: 0, unusedFields: [] };
  return { path: "x.jsonl", examples, truncatedCount: 0, tokenCount: 2 * count, learnedTokenCount: count, digest: "", notes };
};
const linesOf = (data: DataSet<Examples>): number[] => Array.from(data.examples, ({ line }) => line);

describe("splitRows", () => {
  it.each([10, 19, 20, 23, 99, 100])("holds out every tenth of %i rows and trains on the others", (count) => {
    const { data, heldOut } = splitRows(dataOf(count), null, 3);
    const all = Array.from({ length: count }, (_, i) => i);
    expect(linesOf(data)).toEqual(all.filter((i) => i % 10 !== 9));
    expect(linesOf(heldOut)).toEqual(all.filter((i) => i % 10 === 9).slice(0, 3));
  });

  it("holds out nothing where rows were given, and refuses too few", () => {
    const [data, given] = [dataOf(4), dataOf(2)];
    expect(splitRows(data, given, 1)).toEqual({ data, heldOut: given });
    expect(() => splitRows(dataOf(9), null, 3)).toThrow(/9 rows, too few to hold some out/);
  });
});
