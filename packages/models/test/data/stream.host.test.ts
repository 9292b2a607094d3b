import { memoryFiles } from "@lowrank/tensor";
import { describe, expect, it } from "vitest";
import {
  type BatchLayout,
  BatchSequence,
  type DataError,
  type DataSource,
  type Example,
  type Examples,
  ExampleTable,
  encodeRows,
  evaluationBatches,
  evaluationSequence,
  ignoredLabel,
  longestLength,
  parseRows,
  type Row,
  type RowTokenizer,
  readExamples,
  readRows,
  selectExamples,
} from "../../src/data/index.js";
import { characters } from "./characters.js";

const text = [
  '\uFEFF{"text":"größer 🦙"}',
  "",
  '{"prompt":"p","completion":"c"}\r',
  "  \t",
  '{"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"é"}]}',
].join("\n");
const bytes = new TextEncoder().encode(text);

async function* inParts(whole: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < whole.length; start += size) yield whole.subarray(start, start + size);
}

async function collected(source: DataSource): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const row of readRows(source, "x")) rows.push(row);
  return rows;
}

const failure = async (work: Promise<unknown>): Promise<DataError> => {
  const error: unknown = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect((error as Error | null)?.name).toBe("DataError");
  return error as DataError;
};

const sources: readonly (readonly [name: string, source: () => Promise<DataSource> | DataSource])[] = [
  ["a string", () => text],
  ["bytes", () => bytes],
  ["a Blob", () => new Blob([bytes])],
  ["a ReadableStream", () => new Blob([bytes]).stream()],
  ["a ByteSource", async () => (await memoryFiles({ "rows.jsonl": bytes }).open("rows.jsonl")) as DataSource],
  ["a series of arrays", () => [bytes.subarray(0, 9), bytes.subarray(9)]],
  ["a stream of single bytes", () => inParts(bytes, 1)],
  ["a stream of seven bytes", () => inParts(bytes, 7)],
];

describe("readRows", () => {
  it.each(sources)("reads %s as parseRows reads the text", async (_, source) => {
    const rows = await collected(await source());
    expect(rows).toEqual(parseRows(text, "x"));
    expect(rows.map(({ line }) => line)).toEqual([1, 3, 5]);
  });

  it.each<[string, DataSource, number, RegExp]>([
    ["a file without rows", inParts(new TextEncoder().encode("\n \n"), 1), 0, /holds no row\. Write one JSON object a line/],
    ["a line that is not JSON", inParts(new TextEncoder().encode('{"text":"a"}\n{"text":'), 5), 2, /^x:2: not JSON/],
    [
      "a line in Latin-1",
      Uint8Array.from([...bytes, 10, 0x22, 0xe9, 0x22, 10]),
      6,
      /^x:6: the line is not UTF-8 text \(byte 148 of the file is 0xE9\)\. Save the file as UTF-8/,
    ],
    ["a text in UTF-16 cut inside a character", Uint8Array.from([0xff, 0xfe, 0x7b, 0, 0x7b]), 0, /^x: the UTF-16 text is damaged/],
    ["a line cut inside a character", bytes.subarray(0, 15), 1, /not UTF-8/],
  ])("names the line of %s", async (_, source, line, message) => {
    const error = await failure(collected(source));
    expect(error.line).toBe(line);
    expect(error.message).toMatch(message);
  });

  it("refuses a line longer than 512 MB before it is whole", async () => {
    const part = new Uint8Array(2 ** 20).fill(0x20);
    let partCount = 0;
    const endless = async function* (): AsyncGenerator<Uint8Array> {
      yield new TextEncoder().encode('{"text":"a"}\n');
      for (; partCount < 1000; partCount++) yield part;
    };
    const error = await failure(collected(endless()));
    expect(error.message).toMatch(/^x:2: the line is longer than 512 MB.*Write one row on every line/);
    expect(partCount).toBeLessThan(500);
  });

  it("reads lines of several parts", async () => {
    const long = "x".repeat(1_000_000);
    const rows = await collected(inParts(new TextEncoder().encode(`{"text":"${long}"}\n{"text":"y"}\n`), 99_999));
    expect(rows.map((row) => row.kind === "text" && row.text.length)).toEqual([1_000_000, 1]);
  });
});

describe("readExamples", () => {
  const limits = { context: 64, vocabSize: 0x20000 };
  const rows = Array.from({ length: 9000 }, (_, i) =>
    i % 3 === 0
      ? `{"text":"row ${i} 🦙"}`
      : i % 3 === 1
        ? `{"prompt":"p${i}","completion":" c${i % 11}"}`
        : `{"messages":[{"role":"user","content":"u${i}"},{"role":"assistant","content":"a"},{"role":"user","content":"${i}"}]}`,
  );
  const file = `${rows.join("\n")}\n`;

  it("gives the examples of encodeRows, over several pages", async () => {
    const expected = encodeRows(parseRows(file, "x"), "x", characters, { ...limits, maxLength: 16 });
    const { examples, rowCount, layouts, unreadFields, listFields, keys, ...counts } = await readExamples(file, "x", characters, {
      ...limits,
      maxLength: 16,
    });
    expect([Object.fromEntries(layouts), unreadFields]).toEqual([{ messages: 3000, "prompt and completion": 3000, text: 3000 }, []]);
    expect([listFields, keys]).toEqual([[], []]);
    const { examples: all, ...expectedCounts } = expected;
    expect(counts).toEqual(expectedCounts);
    expect([examples.length, rowCount]).toEqual([9000, 9000]);
    expect([...examples]).toEqual(all);
    expect([4095, 4096, 8999].map((i) => examples.at(i))).toEqual([all[4095], all[4096], all[8999]]);
    expect([examples.at(-1), examples.at(9000)]).toEqual([undefined, undefined]);
    expect(longestLength(examples)).toBe(16);
  });

  it.each([
    ["a text", () => file],
    ["a stream", () => inParts(new TextEncoder().encode(file), 1000)],
    ["a Blob's stream", () => new Blob([file]).stream()],
  ])("chooses rows of %s that are evenly spread", async (_, source) => {
    for (const rowLimit of [1, 7, 500, 8999, 9000, 10_000]) {
      const { examples, rowCount } = await readExamples(source(), "x", characters, { ...limits, rowLimit });
      const count = Math.min(rowLimit, 9000);
      expect(rowCount).toBe(9000);
      expect(Array.from(examples, ({ line }) => line)).toEqual(Array.from({ length: count }, (_, i) => Math.floor((i * 9000) / count) + 1));
    }
  });

  it("tells how many rows it has read", async () => {
    const told: number[] = [];
    await readExamples(inParts(new TextEncoder().encode(file), 100_000), "x", characters, {
      ...limits,
      onRows: (count) => void told.push(count),
    });
    expect(told.length).toBeGreaterThan(2);
    expect(told.at(-1)).toBe(9000);
    expect(told).toEqual([...told].sort((a, b) => a - b));
  });

  it("refuses a bad row that the limit leaves out", async () => {
    const error = await failure(readExamples(`${file}{"text":`, "x", characters, { ...limits, rowLimit: 1 }));
    expect(error.line).toBe(9001);
  });

  it("ends when it is told to", async () => {
    const controller = new AbortController();
    const endless = async function* (): AsyncGenerator<Uint8Array> {
      for (let i = 0; ; i++) {
        if (i === 3) controller.abort(new Error("stopped"));
        yield bytes;
        yield Uint8Array.of(10);
      }
    };
    await expect(readExamples(endless(), "x", characters, { ...limits, signal: controller.signal })).rejects.toThrow("stopped");
  });
});

describe("rows far longer than the context", () => {
  const asked: number[] = [];
  const counting: RowTokenizer = {
    ...characters,
    longestToken: 3,
    encodeWithOffsets(text, options) {
      asked.push(text.length);
      return characters.encodeWithOffsets(text, options);
    },
  };
  const long = "x".repeat(1_500_000);
  const rows: readonly [string, Row][] = [
    ["a text", { kind: "text", line: 4, text: long }],
    ["a completion", { kind: "completion", line: 4, prompt: "p", completion: long }],
    ["messages", { kind: "messages", line: 4, messages: [{ role: "assistant", content: long }] }],
  ];

  it.each(rows)("are refused before they are encoded: %s", (_, row) => {
    asked.length = 0;
    expect(() => encodeRows([row], "x", counting, { context: 64 })).toThrow(
      /^x:4: the row has 150000\d characters, more than the model's context of 64 tokens holds\. Shorten or split/,
    );
    expect(asked).toEqual([]);
  });

  it.each(rows)("are cut before they are encoded, with the same tokens: %s", (_, row) => {
    const whole = encodeRows([row], "x", characters, { context: 64, maxLength: 50 });
    asked.length = 0;
    expect(encodeRows([row], "x", counting, { context: 64, maxLength: 50 })).toEqual(whole);
    expect(Math.max(...asked)).toBeLessThan(1_100_000);
  });
});

describe("an ExampleTable", () => {
  const examples: Example[] = Array.from({ length: 5000 }, (_, line) => {
    const ids = Array.from({ length: 2 + ((line * 7) % 23) }, (_, i) => (line * 31 + i) % 70_000);
    return { line: line + 1, ids, labels: ids.map((id, i) => ((line + i) % 3 === 0 ? ignoredLabel : id)) };
  });
  const table = new ExampleTable();
  for (const example of examples) table.append(example);

  it.each<[BatchLayout]>([["padded"], ["packed"]])("gives the %s batches of the array", (layout) => {
    const shape = { layout, lengthLimit: 24 };
    const positions = Uint32Array.from({ length: 900 }, (_, i) => 5 * i + 2);
    for (const [given, expected] of [
      [table, examples],
      [selectExamples(table, positions), examples.filter((_, i) => i < 4500 && i % 5 === 2)],
    ] as const satisfies [Examples, Example[]][]) {
      expect(evaluationBatches(given, 16, shape)).toEqual(evaluationBatches(expected, 16, shape));
      const [mine, theirs] = [given, expected].map((all) => new BatchSequence(all, { ...shape, batchSize: 8, seed: 3 }));
      for (const n of [0, 1, 100, 624, 625, 2000]) expect(mine?.batch(n)).toEqual(theirs?.batch(n));
    }
  });

  it("sorts held-out rows by length, then by line", () => {
    const shuffled = [...examples].reverse();
    const sorted = [...examples].sort((a, b) => a.ids.length - b.ids.length || a.line - b.line);
    const batches = evaluationBatches(shuffled, 1, { layout: "padded", lengthLimit: 24 });
    expect(batches.slice(0, 700).map(({ ids, tokenCount }) => [...ids.slice(0, tokenCount)])).toEqual(
      sorted.slice(0, 700).map(({ ids }) => ids),
    );
  });

  it.each<[string, Example, number?]>([
    ["a label of another token", { line: 1, ids: [5], labels: [6] }],
    ["a negative token", { line: 1, ids: [-1], labels: [-1] }],
    ["a token above the vocabulary", { line: 1, ids: [65_536], labels: [65_536] }, 1000],
  ])("refuses %s", (_, example, vocabSize) => {
    expect(() => new ExampleTable(vocabSize).append(example)).toThrow(RangeError);
  });
});

describe("sizes that no argument list holds", () => {
  const many: Examples = {
    length: 200_000,
    at: (line) => ({ line, ids: [1, 2, line % 100], labels: [1, 2, line % 100] }),
    *[Symbol.iterator]() {
      for (let i = 0; i < this.length; i++) yield this.at(i) as Example;
    },
  };

  it.each<[BatchLayout]>([["padded"], ["packed"]])("makes %s batches of 200,000 rows", (layout) => {
    const shape = { layout, lengthLimit: 64 };
    for (const examples of [many, [...many]]) {
      expect([...evaluationSequence(examples, 5000, shape)].reduce((sum, { tokenCount }) => sum + tokenCount, 0)).toBe(600_000);
      const { tokenCount } = new BatchSequence(examples, { ...shape, batchSize: 150_000, seed: 1 }).batch(0);
      expect(tokenCount).toBe(450_000);
    }
  });

  it("encodes a message of 200,000 tokens", () => {
    const row: Row = {
      kind: "messages",
      line: 1,
      messages: [
        { role: "user", content: "q" },
        { role: "assistant", content: "x".repeat(200_000) },
      ],
    };
    const { learnedTokenCount } = encodeRows([row], "x", characters, { context: 1e6 });
    expect(learnedTokenCount).toBeGreaterThanOrEqual(200_000);
  });
});
