import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { dataPaths, weighted } from "../src/data/paths.js";
import { lengthClasses } from "../src/data/preview.js";
import { lowrankHere, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model } = await tinyProject(folder, { layers: 1 });
const files = fileURLToPath(new URL("../../../test/data-files/", import.meta.url));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const put = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};
const rows = (...pairs: readonly (readonly [string, string])[]): string =>
  pairs.map(([prompt, completion]) => `${JSON.stringify({ prompt, completion })}\n`).join("");
const training = (out: string, ...args: readonly string[]): string[] => [
  ...["train", "--model", model, "--rank", "2", "--targets", "q_proj", "--steps", "1", "--batch-size", "2", "--device", "cpu"],
  ...["--out", join(folder, out), ...args],
];

test.each<[string, string, number]>([
  ["a.jsonl", "a.jsonl", 1],
  ["a.jsonl:2", "a.jsonl", 2],
  ["a:b.jsonl", "a:b.jsonl", 1],
  ["C:\\a.jsonl:0.5", "C:\\a.jsonl", 0.5],
])("%s is %s with weight %d", (name, path, weight) => expect(weighted(name)).toEqual({ path, weight }));

test("a weight of 0 is refused", () => expect(() => weighted("a:0")).toThrow(/weight of a is 0/));

test("a file that is there is meant, whatever its name ends with", async () => {
  const [path, other] = [put("rows:2", ""), put("rows", "")];
  expect(await dataPaths([path, `${path}:3`, `${other}:4`], { output: null })).toEqual([
    { path, weight: 1 },
    { path, weight: 3 },
    { path: other, weight: 4 },
  ]);
});

test("lengths fall into classes of one width that hold all of them", () => {
  expect(lengthClasses([])).toEqual([]);
  expect(lengthClasses([1, 1, 5]).map(({ count }) => count)).toEqual([0, 2, 0, 0, 0, 1]);
  const classes = lengthClasses(Array.from({ length: 1000 }, (_, i) => i));
  expect([classes.length, classes.reduce((sum, { count }) => sum + count, 0)]).toEqual([10, 1000]);
});

describe("train", () => {
  test("takes folders, patterns, weights and columns, and shows the first row", async () => {
    mkdirSync(join(folder, "many"));
    put("many/a.jsonl", rows(["a b", " c"]));
    put("many/b.csv", "prompt,completion,extra\nd e, f,x\n");
    put("many/notes.md", "no rows");
    const { code, stdout, stderr } = await lowrankHere(
      training("out-many", "--data", join(folder, "many"), "--data", `${join(folder, "many", "*.csv")}:2`),
    );
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/b\.csv: 1 row.*\n {2}read as prompt and completion, each row 2 times an epoch\n {2}not used: "extra"/);
    expect(stdout).toMatch(/the first row, ⟦ ⟧ is in the loss:\n {2}.*a b⟦ c.*⟧/);
    expect(stdout).toContain("1 steps of 2 rows (0.5 epochs)");
  });

  test("reads columns by their names", async () => {
    const data = put("columns.tsv", "q\ta\nwho\tlily\n");
    const { code, stdout, stderr } = await lowrankHere(
      training("out-map", "--data", data, "--map", "completion=a", "--format", "Q: {q}\\n"),
    );
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/Q: who\n {2}⟦lily/);
  });

  test("holds a share out, equal rows on one side", async () => {
    const data = put("split.jsonl", rows(...Array.from({ length: 20 }, (_, i) => [`row ${i % 10}${i < 10 ? "" : " "}`, " x"] as const)));
    const { code, stdout, stderr } = await lowrankHere(training("out-split", "--data", data, "--eval-split", "0.2"));
    expect(code, stderr).toBe(0);
    expect(stderr).toContain("held out: 4 of 20 rows");
    expect(stdout).toMatch(/held-out loss .* before training/);
  });

  test("refuses to hold one of one row out", async () => {
    const { code, stderr } = await lowrankHere(training("out-one", "--data", put("one.jsonl", rows(["a", "b"])), "--eval-split", "0.5"));
    expect([code, stderr]).toEqual([2, expect.stringMatching(/one\.jsonl: 1 rows, 1 of them different, are too few/)]);
  });

  test("reads a list inside an object, columns that are named twice over, and says what it leaves", async () => {
    const data = put("wrapped.json", '{"version":"1","data":[{"q":"who","a":"lily","n":1},{"q":"where","a":"here","n":2}]}');
    const args = ["--data", `${data}:0.1`, "--map", "prompt=q", "--map", "completion=a"];
    const { code, stderr } = await lowrankHere(training("out-wrapped", ...args));
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/read as prompt and completion, from the list "data", each row 0.1 times an epoch\n {2}not used: "n"/);
  });

  test("splits long texts where that is wanted", async () => {
    const data = put("long.jsonl", `${JSON.stringify({ text: "a b c d e f g h i j ".repeat(8) })}\n`);
    const { code, stderr } = await lowrankHere(training("out-long", "--data", data, "--max-length", "16", "--long-texts", "split"));
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/1 long text split into \d+ examples/);
  });

  test.each<[string, readonly string[], RegExp]>([
    [
      "two ways to hold rows out",
      ["--data", "x", "--eval-data", "x", "--eval-split", "0.1"],
      /--eval-split and --eval-data are both given/,
    ],
    ["a field that rows have not", ["--data", "x", "--map", "answer_text=a"], /--map has "answer_text=a"/],
    ["a format without a column", ["--data", "x", "--format", "text"], /--format names no column/],
    [
      "a format whose braces are all its text's",
      ["--data", "x", "--format", "{{title}}"],
      /--format names no column. Write one in braces, which are single/,
    ],
    ["a field that is named twice", ["--data", "x", "--map", "text=a", "--map", "text=b"], /--map names "text" twice/],
    ["a pattern without files", ["--data", "nothing-*.jsonl"], /No file matches nothing-/],
  ])("refuses %s", async (_, args, message) => {
    const { code, stderr } = await lowrankHere(training("out-refused", ...args));
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
    expect(existsSync(join(folder, "out-refused"))).toBe(false);
  });
});

describe("data preview", () => {
  test("shows what is learned, what is odd and what overlaps, and writes a page", async () => {
    const data = put("odd.jsonl", `${rows(["a", " b"], ["A ", " b"], ["c", " b"], ["d", " "])}{"text":"é\\u0001 привет"}\n{"text":5}\n`);
    const held = put("held.jsonl", rows(["c", "  b"], ["z", " z"]));
    const html = join(folder, "odd.html");
    const { code, stdout } = await lowrankHere([
      "data",
      "preview",
      data,
      "--model",
      model,
      "--eval-data",
      held,
      "--html",
      html,
      "--rows",
      "1",
    ]);
    expect(code).toBe(2);
    for (const says of [
      /odd\.jsonl:1 {2}\d+ tokens, \d+ of them in the loss/,
      /a⟦ b/,
      /6 rows, read as prompt and completion \(4 rows\), text \(1 row\)/,
      /scripts: .*Cyrillic/,
      /control characters: U\+0001 1 times/,
      /1 rows say what an earlier row says/,
      /3 times "b"/,
      /2 rows cannot be used:\n.*:4: "completion" is empty.*\n.*:6: "text" is not a string/,
      /held\.jsonl: 1 rows say what a row of the others says/,
    ])
      expect(stdout).toMatch(says);
    const page = readFileSync(html, "utf8");
    expect(page).toMatch(/<span class="learned">[^<]*b/);
    expect(page).not.toContain("\u0001");
  });

  test("counts turns that teach to end at once", async () => {
    const data = put("empty.jsonl", '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":""}]}\n');
    const chat = chatModel("empty-model");
    const { code, stdout } = await lowrankHere(["data", "preview", data, "--model", chat]);
    expect([code, stdout]).toEqual([0, expect.stringMatching(/1 turns that are learned say nothing/)]);
  });

  test("has one JSON object", async () => {
    const data = put("id.jsonl", '{"id":1,"text":"a b"}\n');
    const { code, stdout } = await lowrankHere(["data", "preview", data, "--model", model, "--json"]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ files: [{ rowCount: 1, errors: [], unusedFields: ["id"] }], overlap: [] });
  });

  test.each(["[]", "\n\n"])("of a file without rows ends as training does: %j", async (text) => {
    const data = put("none.json", text);
    const { code, stdout } = await lowrankHere(["data", "preview", data, "--model", model]);
    expect([code, stdout]).toEqual([2, expect.stringMatching(/none\.json: the file holds no row/)]);
  });

  test.each<[string, readonly string[], RegExp]>([
    ["no verb", ["data"], /needs a verb/],
    ["another verb", ["data", "show", "x"], /has no "show"/],
    ["no file", ["data", "preview"], /needs a file/],
    ["no model", ["data", "preview", "x"], /needs --model/],
    ["no --out", ["data", "convert", "x"], /needs --out/],
  ])("is refused with %s", async (_, args, message) => {
    const { code, stderr } = await lowrankHere(args);
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
  });
});

test.each(readdirSync(files).filter((name) => /^(sharegpt|alpaca|messages|dolly|conversational|question)/.test(name)))(
  "data convert makes rows of %s that mean the same",
  async (name) => {
    const out = join(folder, "converted.jsonl");
    const { code, stderr } = await lowrankHere(["data", "convert", join(files, name), "--out", out]);
    expect(code, stderr).toBe(0);
    const lines = readFileSync(out, "utf8").trim().split("\n");
    expect(lines).toHaveLength(3);
    for (const line of lines) expect(JSON.parse(line)).toHaveProperty("messages");
  },
);

test("data convert keeps numbers as they are written", async () => {
  const call = '{"type":"function","function":{"name":"f","arguments":{"x":1.0,"id":12345678901234567890}}}';
  const row = `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[${call}]}],"tools":[{"default":2.0}]}`;
  const out = join(folder, "exact.jsonl");
  const { code, stderr } = await lowrankHere(["data", "convert", put("exact-in.jsonl", row), "--out", out]);
  expect(code, stderr).toBe(0);
  const written = readFileSync(out, "utf8");
  expect(written).toContain(call);
  expect(written).toContain('"tools":[{"default":2.0}]');
});

/** A model with a chat template. */
function chatModel(name: string): string {
  const chat = join(folder, name);
  cpSync(fileURLToPath(new URL("../../../examples/base-model/model", import.meta.url)), chat, { recursive: true });
  put(`${name}/chat_template.jinja`, "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}");
  return chat;
}

test("preview reads all data files, and three steps of training learn from each of their rows", async () => {
  const chat = chatModel("chat-model");
  const all = readdirSync(files).map((name) => join(files, name));
  const seen = await lowrankHere(["data", "preview", ...all, "--model", chat, "--rows", "0", "--json"]);
  expect(seen.code, seen.stderr).toBe(0);
  const { files: previews } = JSON.parse(seen.stdout) as { files: { rowCount: number; learnedTokenCount: number; errors: unknown[] }[] };
  expect(previews.map(({ rowCount, errors }) => [rowCount, errors.length])).toEqual(all.map(() => [3, 0]));
  for (const { learnedTokenCount } of previews) expect(learnedTokenCount).toBeGreaterThan(9);
  const args = ["--rank", "1", "--targets", "q_proj", "--steps", "3", "--batch-size", String(all.length), "--device", "cpu"];
  const out = join(folder, "out-all");
  const trained = await lowrankHere(["train", "--model", chat, ...all.flatMap((path) => ["--data", path]), ...args, "--out", out]);
  expect(trained.code, trained.stderr).toBe(0);
  expect(trained.stdout).toContain("(1.0 epochs)");
});
