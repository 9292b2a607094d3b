import { describe, expect, it } from "vitest";
import {
  BatchSequence,
  bucketLength,
  collate,
  DataError,
  encodeRows,
  evaluationBatches,
  packedLength,
  parseRows,
  type Row,
  type RowTokenizer,
  shuffledOrder,
} from "../../src/data/index.js";
import { characters } from "./characters.js";

const codes = (text: string): number[] => [...text].map((c) => c.charCodeAt(0));
const encode = (rows: Row[], limits = {}): ReturnType<typeof encodeRows> =>
  encodeRows(rows, "x.jsonl", characters, { context: 64, ...limits });
const failure = (fn: () => unknown): DataError => {
  try {
    fn();
  } catch (error) {
    if (error instanceof DataError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
};

describe("parseRows", () => {
  it("reads the three forms and keeps line numbers", () => {
    const rows = parseRows('{"text":"a"}\n\n{"prompt":"p","completion":"c"}\r\n{"messages":[{"role":"user","content":"u"}]}', "x");
    expect(rows.map(({ kind, line }) => [kind, line])).toEqual([
      ["text", 1],
      ["completion", 3],
      ["messages", 4],
    ]);
  });

  it.each([
    ["an empty file", "\n \n", 0, /holds no row\. Write one JSON object a line/],
    ["a line that is not JSON", '{"text":"a"}\n{"text":', 2, /^x:2: not JSON .*Write one whole JSON object/],
    ["an array", "[1]", 1, /^x:1: the line holds an array/],
    ["other fields", '{"question":"a"}', 1, /the fields "question"\. Name the columns: --map/],
    ["a missing completion", '{"prompt":"a"}', 1, /"completion" is missing/],
    ["a number for a text", '{"text":5}', 1, /"text" is not a string/],
    ["messages without content", '{"messages":[{"role":"user"}]}', 1, /"messages"\[0\] has no "content"/],
  ])("names file, line and remedy for %s", (_, text, line, message) => {
    const error = failure(() => parseRows(text, "x"));
    expect(error.line).toBe(line);
    expect(error.message).toMatch(message);
  });
});

describe("encodeRows", () => {
  it("learns a completion only, nothing between, the end token after it", () => {
    const [example] = encode([{ kind: "completion", line: 1, prompt: "xy", completion: "zw" }]).examples;
    expect(example?.ids).toEqual([1, ...codes("xyzw"), 2]);
    expect(example?.labels).toEqual([-100, -100, -100, ...codes("zw"), 2]);
  });

  it.each<[string, string, string, number[], number[], number]>([
    ["the prompt ends in white space", "x\n", "z", [1, ...codes("x\n")], codes("z"), 0],
    ["the completion begins with white space", "x", "\tz", [1, ...codes("x")], codes("\tz"), 0],
    ["a token lies across the border, which is the completion's", "xa", "by", [1, ...codes("x")], [3, ...codes("y")], 1],
    ["the prompt is empty", "", "z", [1], codes("z"), 0],
    ["the prompt begins with the begin token", "\x01x", "z", [1, ...codes("x")], codes("z"), 0],
    ["the prompt ends with the end token", "x\x02", "z", [1, ...codes("x"), 2], codes("z"), 0],
  ])("has the tokens of the joined text where %s", (_, prompt, completion, before, after, splitBorderCount) => {
    const { examples, notes } = encode([{ kind: "completion", line: 1, prompt, completion }]);
    expect(examples[0]?.ids).toEqual([...before, ...after, 2]);
    expect(examples[0]?.labels).toEqual([...before.map(() => -100), ...after, 2]);
    expect(notes.splitBorderCount).toBe(splitBorderCount);
  });

  it("takes tokenizers that know no offsets, which encode what lies between borders", () => {
    const { encodeWithOffsets: _, renderChat, ...others } = characters;
    const plain: RowTokenizer = { ...others, applyChatTemplate: (messages, options) => renderChat?.(messages, options).text ?? "" };
    const rows: Row[] = [
      { kind: "completion", line: 1, prompt: "xa", completion: "cy" },
      { kind: "completion", line: 2, prompt: "xa", completion: "by" },
      { kind: "text", line: 3, text: "zab" },
      {
        kind: "messages",
        line: 4,
        messages: [
          { role: "user", content: "q" },
          { role: "assistant", content: "ab" },
        ],
      },
    ];
    const { examples } = encodeRows(rows, "x", plain, { context: 64 });
    expect(examples.map(({ ids }) => ids)).toEqual([
      [1, ...codes("xacy"), 2],
      [1, ...codes("xaby"), 2],
      [1, ...codes("z"), 3, 2],
      [...codes("<u>q\n<a>"), 3, ...codes("\n")],
    ]);
    expect(examples.map(({ labels }) => labels.filter((label) => label !== -100))).toEqual([
      [...codes("cy"), 2],
      [...codes("by"), 2],
      [1, ...codes("z"), 3, 2],
      [3, ...codes("\n")],
    ]);
  });

  it("splits long texts where that is wanted, and nothing else", () => {
    const { examples, notes, truncatedCount } = encode(
      [
        { kind: "text", line: 1, text: "x".repeat(20) },
        { kind: "completion", line: 2, prompt: "p", completion: "c".repeat(20) },
        { kind: "text", line: 3, text: "x".repeat(19) },
      ],
      { maxLength: 10, isSplit: true },
    );
    expect(examples.map(({ line, ids }) => [line, ids.length, ids.at(-1)])).toEqual([
      [1, 10, 120],
      [1, 10, 120],
      [1, 2, 2],
      [2, 10, 99],
      [3, 10, 120],
      [3, 9, 120],
      [3, 2, 2],
    ]);
    expect([notes.splitCount, truncatedCount]).toEqual([2, 1]);
  });

  it("learns all of a text and only the assistant's turns of a conversation", () => {
    const [text] = encode([{ kind: "text", line: 1, text: "xy" }]).examples;
    expect(text?.labels).toEqual([1, ...codes("xy"), 2]);
    const chat: Row = {
      kind: "messages",
      line: 1,
      messages: [
        { role: "user", content: "q" },
        { role: "assistant", content: "r" },
        { role: "user", content: "s" },
      ],
    };
    const [example] = encode([chat]).examples;
    expect(example?.ids).toEqual(codes("<u>q\n<a>r\n<u>s\n"));
    expect(example?.labels.filter((label) => label !== -100)).toEqual(codes("r\n"));
  });

  it("cuts long rows only when told to, and counts them", () => {
    const row: Row = { kind: "text", line: 7, text: "x".repeat(80) };
    expect(failure(() => encode([row])).message).toMatch(
      /^x\.jsonl:7: the row has 82 tokens but the model's context is 64\. .*--max-length 64/,
    );
    const cut = encode([row, { kind: "text", line: 8, text: "y" }], { maxLength: 10 });
    expect([cut.truncatedCount, cut.examples[0]?.ids.length, cut.examples[1]?.ids.length]).toEqual([1, 10, 3]);
    expect([cut.tokenCount, cut.learnedTokenCount]).toEqual([13, 11]);
  });

  it.each<[string, Row, object, RegExp]>([
    ["an empty completion", { kind: "completion", line: 3, prompt: "a", completion: " " }, {}, /:3: "completion" is empty/],
    ["an empty text", { kind: "text", line: 3, text: "" }, {}, /:3: "text" is empty/],
    [
      "only the prompt left after cutting",
      { kind: "completion", line: 3, prompt: "xxxxxxxx", completion: "y" },
      { maxLength: 4 },
      /only the prompt is left\. Raise --max-length/,
    ],
    [
      "no assistant's turn",
      { kind: "messages", line: 3, messages: [{ role: "user", content: "q" }] },
      {},
      /no turn with the role "assistant"/,
    ],
    [
      "a token outside the vocabulary",
      { kind: "text", line: 3, text: "é" },
      { vocabSize: 128 },
      /gives token 233 but the model knows 0 to 127/,
    ],
  ])("refuses %s", (_, row, limits, message) => {
    const error = failure(() => encode([row], limits));
    expect(error.line).toBe(3);
    expect(error.message).toMatch(message);
  });

  it("says that a chat template is missing", () => {
    const { renderChat: _, ...plain } = characters;
    const row: Row = {
      kind: "messages",
      line: 2,
      messages: [
        { role: "user", content: "q" },
        { role: "assistant", content: "r" },
      ],
    };
    expect(failure(() => encodeRows([row], "x", plain, { context: 9 })).message).toMatch(/has no chat template/);
  });
});

describe("batches", () => {
  const examples = Array.from({ length: 10 }, (_, i) => ({
    line: i,
    ids: Array.from({ length: i + 2 }, () => i),
    labels: Array.from({ length: i + 2 }, () => i),
  }));
  const sequence = (seed: number): BatchSequence => new BatchSequence(examples, { batchSize: 4, seed, lengthLimit: 48, layout: "padded" });

  it("shuffles as it always has", () => {
    expect([...shuffledOrder(12, 1, 0)]).toEqual([8, 0, 9, 6, 10, 1, 7, 2, 3, 5, 4, 11]);
    expect([...shuffledOrder(12, 7, 3)]).toEqual([10, 8, 7, 4, 9, 0, 3, 1, 11, 2, 5, 6]);
    const digest = shuffledOrder(100_000, 5, 2).reduce((sum, index) => (Math.imul(sum, 31) + index) | 0, 0);
    expect(digest).toBe(460281564);
  });

  it("shuffles each epoch by seed and epoch alone", () => {
    expect([...shuffledOrder(50, 1, 0)].sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(shuffledOrder(50, 1, 0)).toEqual(shuffledOrder(50, 1, 0));
    expect(shuffledOrder(50, 1, 0)).not.toEqual(shuffledOrder(50, 1, 1));
    expect(shuffledOrder(50, 1, 0)).not.toEqual(shuffledOrder(50, 2, 0));
  });

  it("gives batch n whatever was asked before, and every row once an epoch", () => {
    const whole = Array.from({ length: 5 }, (_, n) => sequence(3).batch(n));
    const forward = sequence(3);
    expect(Array.from({ length: 5 }, (_, n) => forward.batch(n))).toEqual(whole);
    const rows = whole.flatMap((batch) => Array.from({ length: batch.rowCount }, (_, row) => batch.ids[row * batch.length]));
    expect(rows.slice(0, 10).sort()).toEqual(rows.slice(10).sort());
    expect(new Set(rows).size).toBe(10);
  });

  it("pads on the right to few lengths, never past the limit", () => {
    expect([1, 32, 33, 256, 257, 500].map((n) => bucketLength(n, 512))).toEqual([32, 32, 64, 256, 320, 512]);
    expect(bucketLength(40, 48)).toBe(48);
    const batch = collate([examples[0] as never, examples[3] as never], { layout: "padded", lengthLimit: 48 }, { rowCount: 3 });
    expect([batch.rowCount, batch.length, batch.tokenCount, batch.learnedTokenCount]).toEqual([3, 32, 7, 5]);
    expect([...batch.labels.slice(32, 38)]).toEqual([3, 3, 3, 3, 3, -100]);
    expect([...batch.labels.slice(64)].every((label) => label === -100)).toBe(true);
  });

  it("packs rows one behind the other, each with positions of its own", () => {
    const batch = collate([examples[0] as never, examples[3] as never, examples[1] as never], { layout: "packed", lengthLimit: 48 });
    expect([batch.rowCount, batch.length, batch.rowLimit, batch.tokenCount, batch.learnedTokenCount]).toEqual([1, 32, 48, 10, 7]);
    expect([...batch.ids.slice(0, 12)]).toEqual([0, 0, 3, 3, 3, 3, 3, 1, 1, 1, 0, 0]);
    expect([...batch.labels.slice(0, 12)]).toEqual([0, 0, 3, 3, 3, 3, 3, 1, 1, 1, -100, -100]);
    expect([...(batch.positions ?? []).slice(0, 12)]).toEqual([0, 1, 0, 1, 2, 3, 4, 0, 1, 2, 0, 0]);
  });

  it("packs into few lengths, never more than rows of the limit would have", () => {
    expect([2, 40, 300, 1309, 1409, 5000].map((n) => packedLength(n, 8192))).toEqual([32, 64, 320, 1408, 1536, 5120]);
    expect(packedLength(780, 800)).toBe(800);
    const full = Array.from({ length: 3 }, (_, line) => ({ line, ids: new Array(11).fill(line), labels: new Array(11).fill(line) }));
    expect(collate(full, { layout: "packed", lengthLimit: 11 }).length).toBe(33);
    // 50 rows of 100 tokens and 50 of 300: four rows have 800 ± 200, so that the shortest batches take the length of those of 600.
    const rows = Array.from({ length: 100 }, (_, line) => ({ line, ids: new Array(line % 2 ? 300 : 100).fill(1), labels: [] }));
    const packed = new BatchSequence(rows, { batchSize: 4, seed: 1, lengthLimit: 300, layout: "packed" });
    const lengths = Array.from({ length: 200 }, (_, n) => packed.batch(n).length);
    expect([...new Set(lengths)].sort((a, b) => a - b)).toEqual([704, 864, 1024, 1200]);
    const same = new BatchSequence(rows.slice(0, 1), { batchSize: 4, seed: 1, lengthLimit: 300, layout: "packed" });
    expect(same.batch(0).length).toBe(400);
  });

  it("packs held-out rows into one length, each once", () => {
    const rows = Array.from({ length: 30 }, (_, line) => ({ line, ids: new Array(5 + ((line * 11) % 40)).fill(line), labels: [] }));
    const batches = evaluationBatches(rows, 8, { layout: "packed", lengthLimit: 44 });
    expect(new Set(batches.map(({ length }) => length)).size).toBe(1);
    expect(batches.flatMap(({ ids, tokenCount }) => [...ids.slice(0, tokenCount)])).toEqual(rows.flatMap(({ ids }) => ids));
    expect(batches.length).toBeLessThanOrEqual(Math.ceil(30 / 8) + 1);
  });
});
