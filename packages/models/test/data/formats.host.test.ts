import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { type DataError, type DataRecord, type DataSource, type Row, RowReader, readRows, stringifyLossless } from "@lowrank/models";
import { describe, expect, it } from "vitest";

const folder = fileURLToPath(new URL("../../../../test/data-files/", import.meta.url));
const system = "You answer in short sentences.";
const pairs: readonly (readonly [string, string])[] = [
  ["Who is Lily?", "Lily is a little girl."],
  ['What did Tim "the cat" say?', "He said: hello, friend.\nThen he slept."],
  ["Où est le café?", "Au coin de la rue."],
];

/** What a row means, its line aside. */
type Meaning = Record<string, unknown>;

const chat = (question: string, answer: string, before: readonly unknown[] = []): Meaning => ({
  kind: "messages",
  messages: [...before, { role: "user", content: question }, { role: "assistant", content: answer }],
});
const alpacaPrompt = (question: string): string =>
  `Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n${question}\n\n### Response:\n`;

/** By the beginning of a file's name, what its rows are as text and where the model has a chat template. */
const meanings: Readonly<Record<string, { text: (i: number) => Meaning; chat?: (i: number) => Meaning }>> = {
  completion: { text: (i) => ({ kind: "completion", prompt: `${pair(i)[0]}\n`, completion: pair(i)[1] }) },
  text: { text: (i) => ({ kind: "text", text: pair(i).join(" ") }) },
  messages: { text: (i) => chat(...pair(i)) },
  "messages-system": { text: (i) => chat(...pair(i), [{ role: "system", content: system }]) },
  conversational: { text: (i) => chat(...pair(i)) },
  sharegpt: { text: (i) => chat(...pair(i)) },
  "sharegpt-system": { text: (i) => chat(...pair(i), [{ role: "system", content: system }]) },
  alpaca: {
    text: (i) => ({
      kind: "completion",
      prompt: i === 0 ? expect.stringContaining("Lily plays in the park.") : alpacaPrompt(pair(i)[0]),
      completion: pair(i)[1],
    }),
    chat: (i) => chat(i === 0 ? "Who is Lily?\nLily plays in the park." : pair(i)[0], pair(i)[1]),
  },
  "alpaca-history": {
    text: (i) => ({
      kind: "completion",
      prompt: `${system}\n\n${alpacaPrompt("Hi")}Hello\n\n${alpacaPrompt(pair(i)[0])}`,
      completion: pair(i)[1],
    }),
    chat: (i) => ({
      ...chat(...pair(i), [
        { role: "system", content: system },
        { role: "user", content: "Hi" },
        { role: "assistant", content: "Hello" },
      ]),
      isSupervised: [true, true, false, true, true],
    }),
  },
  dolly: { text: (i) => ({ kind: "completion", prompt: alpacaPrompt(pair(i)[0]), completion: pair(i)[1] }), chat: (i) => chat(...pair(i)) },
  question: { text: (i) => ({ kind: "completion", prompt: `${pair(i)[0]}\n`, completion: pair(i)[1] }), chat: (i) => chat(...pair(i)) },
};

function pair(i: number): readonly [string, string] {
  return pairs[i] as (typeof pairs)[number]; // three rows
}

function meaningOf(file: string): (typeof meanings)[string] {
  const name = file.replace(/\..*/, "");
  const meaning = meanings[name] ?? meanings[name.replace(/-.*/, "")];
  if (!meaning) throw new Error(`no row of the table says what ${file} holds`);
  return meaning;
}

async function rowsOf(source: DataSource, path: string, options: Parameters<typeof readRows>[2] = { asMessages: false }): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const row of readRows(source, path, options)) rows.push(row);
  return rows;
}

async function failure(promise: Promise<unknown>): Promise<DataError> {
  try {
    await promise;
  } catch (error) {
    return error as DataError;
  }
  throw new Error("nothing was thrown");
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const withoutLine = ({ line: _, ...row }: Row): Meaning => row;

describe("data files", () => {
  const files = readdirSync(folder);
  it("are 40 and more", () => expect(files.length).toBeGreaterThanOrEqual(40));

  it.each(files)("%s holds the same three rows as all others of its layout", async (file) => {
    const { text, chat: asChat = text } = meaningOf(file);
    const read = readFileSync(folder + file);
    expect((await rowsOf(read, file)).map(withoutLine)).toEqual([0, 1, 2].map(text));
    expect((await rowsOf(read, file, { asMessages: true })).map(withoutLine)).toEqual([0, 1, 2].map(asChat));
    // From a stream of few bytes at a time, as from a Blob.
    async function* parts(): AsyncGenerator<Uint8Array> {
      for (let i = 0; i < read.length; i += 7) yield read.subarray(i, i + 7);
    }
    expect((await rowsOf(parts(), file)).map(withoutLine)).toEqual([0, 1, 2].map(text));
    expect((await rowsOf(new Blob([read]), file)).map(withoutLine)).toEqual([0, 1, 2].map(text));
  });

  it.each<[string, string, Uint8Array, number, RegExp]>([
    ["a list that is cut", "x.json", bytes('[{"text":"a"},\n{"text":'), 2, /the text ends inside the value that begins here/],
    ["a list without its end", "x.json", bytes('[{"text":"a"},\n'), 1, /the text ends before the list does/],
    ["more behind a list", "x.json", bytes('[{"text":"a"}]\n{"text":"b"}'), 1, /there is more after the list's end/],
    ["brackets that open nowhere", "x.jsonl", bytes(" [}, {{"), 1, /the text ends inside the value/],
    ["a list of brackets that open nowhere", "x.json", bytes('[},"]",}]'), 1, /3 rows cannot be used:\n {2}x\.json:1: not JSON/],
    ["a list of numbers", "x.json", bytes("[1, 2]"), 1, /2 rows cannot be used:\n {2}x.json:1: the line holds 1 where an object belongs/],
    ["a value of a list that is not JSON", "x.json", bytes('[\n{"text":"a"},\n{"text":a}]'), 3, /^x.json:3: not JSON/],
    ["a row with too many values", "x.csv", bytes('text,b\na,b\n"c\nd",e\nf,g,h\n'), 5, /^x.csv:5: the row has 3 values for 2 columns/],
    ["quotes inside a value", "x.csv", bytes('text\na\nb"c"\n'), 3, /^x.csv:3: not a table of values/],
    ["columns without a name", "x.csv", bytes(",\na,b\n"), 1, /none has a name/],
    ["a column named twice", "x.tsv", bytes("text\ttext\na\tb\n"), 1, /"text" comes twice/],
    ["bytes that are not UTF-8", "x.csv", Uint8Array.from([...bytes("text\na\n"), 0xe9, 10]), 3, /byte 7 of the file is 0xE9/],
    [
      "a Parquet file that is cut",
      "x.parquet",
      readFileSync(`${folder}completion.parquet`).subarray(0, 500),
      0,
      /Parquet file cannot be read/,
    ],
    ["a Parquet file that is none", "x.parquet", bytes("hello"), 0, /does not begin with PAR1/],
    [
      "a gzip file that is cut",
      "x.jsonl.gz",
      gzipSync('{"text":"a"}\n'.repeat(99)).subarray(0, 30),
      0,
      /compressed file is damaged or cut/,
    ],
    [
      "a zstd file that is cut",
      "x.jsonl.zst",
      readFileSync(`${folder}completion.jsonl.zst`).subarray(0, 60),
      0,
      /compressed file is damaged or cut/,
    ],
    ["a ZIP archive", "x.jsonl", bytes("PK\u0003\u0004rest"), 0, /is a ZIP archive or an Excel workbook, which is not read. Unpack it/],
    ["a file packed by xz", "x.jsonl.xz", Uint8Array.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 1]), 0, /is packed by xz, which is not read/],
    ["a file packed by bzip2", "x", bytes("BZh91AY&SYrest"), 0, /is packed by bzip2.*bunzip2/],
    ["an Arrow file", "x.arrow", bytes("ARROW1\0\0"), 0, /is an Arrow file, which is not read.*to_parquet/],
    ["an archive in gzip", "x.tar.gz", gzipSync("x.jsonl\0\0"), 0, /is a tar archive, which is not read/],
    ["a database", "x.db", bytes("SQLite format 3\0rest"), 0, /is an SQLite database.*CSV/],
    [
      "several lists of rows",
      "x.json",
      bytes('{"train":[{"text":"a"}],"rows":[{"text":"b"}]}'),
      1,
      /several lists of rows: "rows", "train"/,
    ],
    ["an object around lists of numbers", "x.json", bytes('{"data":[1,2]}'), 1, /the row has the fields "data"/],
    ["a message for a row", "x.jsonl", bytes('{"role":"user","content":"a"}'), 1, /the row is one message.*"messages":\[/],
    ["a UTF-16 text without its mark that is cut", "x.jsonl", bytes('{\0"\0t'), 0, /UTF-16 text is damaged/],
  ])("names the place of %s", async (_, path, source, line, message) => {
    const error = await failure(rowsOf(source, path));
    expect([error.name, error.line, error.message]).toEqual(["DataError", line, expect.stringMatching(message)]);
  });

  const utf16 = (text: string, isLittle: boolean): Uint8Array =>
    Uint8Array.from(
      [...text].flatMap((sign) => [sign.charCodeAt(0) & 255, sign.charCodeAt(0) >> 8]).map((_, i, all) => all[isLittle ? i : i ^ 1] ?? 0),
    );
  it.each<[string, string, Uint8Array, readonly (readonly [line: number, text: string])[]]>([
    [
      "a list inside an object",
      "x.json",
      bytes('{"version":"1","data":[{"text":"a"},{"text":"b"}]}'),
      [
        [1, "a"],
        [2, "b"],
      ],
    ],
    [
      "a list inside an object over several lines",
      "x.json",
      bytes('{\n "rows": [\n  {"text": "a"},\n  {"text": "b"}\n ]\n}'),
      [
        [1, "a"],
        [2, "b"],
      ],
    ],
    [
      "an object that begins on the first line",
      "x.json",
      bytes('{"n": 1, "train": [\n{"text":"a"},\n{"text":"b"}]}\n'),
      [
        [1, "a"],
        [2, "b"],
      ],
    ],
    [
      "objects over several lines",
      "x.json",
      bytes('{ "text":\n"a"}\n{"text":"b"}'),
      [
        [1, "a"],
        [3, "b"],
      ],
    ],
    ["a row with a list beside its text", "x.jsonl", bytes('{"text":"a","data":[{"text":"b"}]}'), [[1, "a"]]],
    [
      "UTF-16 without its mark",
      "x.jsonl",
      utf16('{"text":"aß"}\n{"text":"b"}', true),
      [
        [1, "aß"],
        [2, "b"],
      ],
    ],
    [
      "big-endian UTF-16 without its mark",
      "x.csv",
      utf16("text\na\nb", false),
      [
        [2, "a"],
        [3, "b"],
      ],
    ],
    [
      "the index that pandas writes",
      "x.csv",
      bytes(",text\n0,a\n1,b\n"),
      [
        [2, "a"],
        [3, "b"],
      ],
    ],
    [
      "gzip of several members",
      "x.jsonl",
      Uint8Array.from([...gzipSync('{"text":"a"}\n'), ...gzipSync('{"text":"b"}\n')]),
      [
        [1, "a"],
        [2, "b"],
      ],
    ],
    [
      "a list that ends with a comma",
      "x.json",
      bytes('[{"text":"a"},{"text":"b"},]'),
      [
        [1, "a"],
        [1, "b"],
      ],
    ],
    ["one row without a line break", "x.jsonl", bytes('{"text":"a"}'), [[1, "a"]]],
  ])("reads %s, whole and by the byte", async (_, path, source, rows) => {
    const expected = rows.map(([line, text]) => ({ kind: "text", line, text }));
    expect(await rowsOf(source, path)).toEqual(expected);
    expect(
      await rowsOf(
        Array.from(source, (byte) => Uint8Array.of(byte)),
        path,
      ),
    ).toEqual(expected);
  });

  it.each<[string, string, Meaning[]]>([
    [
      "lists of turns",
      '[[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],[{"from":"human","value":"c"},{"from":"gpt","value":"d"}]]',
      [chat("a", "b"), chat("c", "d")],
    ],
    [
      "parts of text of several types",
      '{"messages":[{"role":"user","content":["a",{"type":"input_text","text":"b"}]},{"role":"assistant","content":[{"type":"output_text","text":"c"}]}]}',
      [chat("ab", "c")],
    ],
    [
      "calls by another name",
      '{"conversations":[{"from":"tool_call","value":"{\\"name\\":\\"f\\"}"},{"from":"tool_response","value":"1"}]}',
      [
        {
          kind: "messages",
          messages: [
            { role: "assistant", content: null, tool_calls: [{ type: "function", function: { name: "f", arguments: {} } }] },
            { role: "tool", content: "1" },
          ],
        },
      ],
    ],
    [
      "what ShareGPT's turns hold besides",
      '{"conversations":[{"from":"human","value":"a","name":"n"},{"from":"gpt","value":"b","weight":0},{"from":"gpt","value":"c","weight":1.0}]}',
      [
        {
          kind: "messages",
          messages: [
            { role: "user", content: "a", name: "n" },
            { role: "assistant", content: "b" },
            { role: "assistant", content: "c" },
          ],
          isSupervised: [true, false, true],
        },
      ],
    ],
  ])("reads %s", async (_, text, expected) => expect((await rowsOf(text, "x")).map(withoutLine)).toEqual(expected));

  it("keeps Parquet's floats and integers of 64 bits", async () => {
    const path = fileURLToPath(new URL("../../../../test/odd-files/numbers.parquet", import.meta.url));
    const reader = new RowReader("x", { asMessages: true });
    const rows = [];
    for await (const records of reader.records(readFileSync(path)))
      for (const record of records) rows.push(reader.row(record as DataRecord));
    const call = '{"id":4611686018427387905,"function":{"name":"f","arguments":{"x":5.0,"n":7}}}';
    const messages = `[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[${call}]},{"role":"assistant","content":"b"}]`;
    expect(stringifyLossless(rows)).toBe(`[{"kind":"messages","line":1,"messages":${messages},"isSupervised":[true,true,false]}]`);
    expect([...reader.unreadFields]).toEqual(["scores"]);
  });

  it("takes bytes of Parquet for texts only where they are", async () => {
    const source = readFileSync(fileURLToPath(new URL("../../../../test/odd-files/bytes.parquet", import.meta.url)));
    const { message } = await failure(rowsOf(source, "x"));
    expect(message).toMatch(/^x: 2 rows cannot be used:\n {2}x:2: "text" holds bytes that are not UTF-8.*\n {2}x:3: the row has/);
  });

  it("refuses a table whose quote is never closed before it fills the memory", async () => {
    const part = bytes("x".repeat(2 ** 20));
    async function* endless(): AsyncGenerator<Uint8Array> {
      yield bytes('text\na\n"b');
      for (;;) yield part;
    }
    expect(await failure(rowsOf(endless(), "x.csv"))).toMatchObject({
      line: 3,
      message: expect.stringMatching(/^x.csv:3: the row that begins here does not end/),
    });
  });

  it("tells the first 20 rows that are wrong at once", async () => {
    const error = await failure(rowsOf('{"text":"a"}\n{"text":1}\n'.repeat(30), "x"));
    expect(error.message.split("\n")).toHaveLength(21);
    expect(error.message).toMatch(/^x: the first 20 rows that cannot be used:\n {2}x:2: "text" is not a string.*\n {2}x:4: /);
  });

  it("reads columns of other names", async () => {
    const file = '{"q":{"t":"Why?"},"a":["Because.","No."],"n":3}\n';
    const map = { prompt: "q.t", completion: "a.0" };
    expect(await rowsOf(file, "x", { asMessages: false, map })).toEqual([
      { kind: "completion", line: 1, prompt: "Why?", completion: "Because." },
    ]);
    expect(await rowsOf(file, "x", { asMessages: false, format: "{{{n}}} {q.t}\n" })).toEqual([
      { kind: "text", line: 1, text: "{3} Why?\n" },
    ]);
    expect(await rowsOf(file, "x", { asMessages: false, format: "Q: {q.t}\nA:", map: { completion: "a.1" } })).toEqual([
      { kind: "completion", line: 1, prompt: "Q: Why?\nA:", completion: "No." },
    ]);
    expect((await failure(rowsOf(file, "x", { asMessages: false, map: { text: "z" } }))).message).toMatch(
      /has no column "z". It has "q", "a", "n"/,
    );
  });

  it.each<[string, string, RegExp]>([
    ["a row without values", '{"text":null,"n":null}', /the row has no value in "text", "n"/],
    ["preferences", '{"prompt":"p","chosen":"a","rejected":"b"}', /preferences.*--map prompt=prompt,completion=chosen/],
    ["an image", '{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}', /a part of type "image_url"/],
    ["a weight of a half", '{"messages":[{"role":"assistant","content":"a","weight":0.5}]}', /is 0.5. A turn is learned or not/],
    ["a weight of the user's", '{"messages":[{"role":"user","content":"a","weight":1}]}', /not the assistant's/],
    ["a weight of a half in ShareGPT", '{"conversations":[{"from":"gpt","value":"a","weight":0.5}]}', /is 0.5. A turn is learned or not/],
    ["a weight of the human's", '{"conversations":[{"from":"human","value":"a","weight":1}]}', /not the assistant's/],
    ["a speaker that objects know", '{"conversations":[{"from":"constructor","value":"a"}]}', /is from "constructor"/],
    [
      "a generation prompt behind what is learned",
      '{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"add_generation_prompt":true}}',
      /"chat_template_kwargs" has "add_generation_prompt"/,
    ],
    [
      "tools among the template's variables",
      '{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"tools":[]}}',
      /Write "tools" as a field of the row/,
    ],
    ["an unknown speaker", '{"conversations":[{"from":"robot","value":"a"}]}', /is from "robot". Known are system, human/],
    ["a call that is not JSON", '{"conversations":[{"from":"function_call","value":"f()"}]}', /function_call.*is not JSON/],
    ["tools that are not a list", '{"messages":[{"role":"user","content":"a"}],"tools":"{}"}', /"tools" is not a list/],
  ])("refuses %s by name", async (_, line, message) => {
    expect((await failure(rowsOf(line, "x"))).message).toMatch(message);
  });

  it("reads calls, tools, weights and the template's variables", async () => {
    const calls = [{ type: "function", function: { name: "f", arguments: { a: 1 } } }];
    const [openAi, shareGpt] = await rowsOf(
      `${JSON.stringify({
        messages: [
          { role: "user", content: "a" },
          { role: "assistant", content: null, tool_calls: calls, weight: 0 },
          { role: "tool", content: "1", tool_call_id: "x" },
          { role: "assistant", content: "b", train: true },
        ],
        tools: '[{"name":"f"}]',
        documents: [{ title: "t" }],
        chat_template_kwargs: { enable_thinking: false },
      })}\n${JSON.stringify({
        conversations: [
          { from: "human", value: "a" },
          { from: "function_call", value: '{"name":"f","arguments":{"a":1}}' },
          { from: "observation", value: "1" },
        ],
        tools: "",
      })}`,
      "x",
    );
    expect(openAi).toEqual({
      kind: "messages",
      line: 1,
      messages: [
        { role: "user", content: "a" },
        { role: "assistant", content: null, tool_calls: calls },
        { role: "tool", content: "1", tool_call_id: "x" },
        { role: "assistant", content: "b" },
      ],
      isSupervised: [true, false, true, true],
      tools: [{ name: "f" }],
      documents: [{ title: "t" }],
      variables: { enable_thinking: false },
    });
    expect(shareGpt).toMatchObject({ messages: [{ content: "a" }, { content: null, tool_calls: calls }, { role: "tool", content: "1" }] });
    expect(shareGpt).not.toHaveProperty("tools");
  });
});
