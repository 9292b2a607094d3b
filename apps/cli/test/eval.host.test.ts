import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { jsonScores } from "../src/eval/json-answers.js";
import { chrf, normalized, rougeL } from "../src/eval/overlap.js";
import { lowrankHere, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model } = await tinyProject(folder, { layers: 1 });
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("measures of answers", () => {
  test.each<[string, string, number]>([
    ["the cat sat", "the cat sat", 1],
    ["The cat is sitting on the mat.", "the cat sat on the mat", 10 / 13],
    ["a b c d", "d c b a", 1 / 4],
    ["Grün ist", "grün", 2 / 3],
    ["a", "", 0],
  ])("ROUGE-L of %j and %j is %d", (expected, answer, score) => expect(rougeL([{ expected, answer }])).toBeCloseTo(score, 10));

  // Shares of common sequences by their length: 2/3, 1/2 and 0 of what both have; of "ab" and "abcd" 2/2 and 1/1 are right, and 2/4 and 1/3 found.
  test.each<[string, string, number]>([
    ["abd", "abc", (100 * (2 / 3 + 1 / 2)) / 3],
    ["a b d", "ab c", (100 * (2 / 3 + 1 / 2)) / 3],
    ["abcd", "ab", (100 * 5 * (5 / 12)) / (4 + 5 / 12)],
    ["abc", "abc", 100],
    ["abc", "xyz", 0],
  ])("chrF of %j and %j is %d", (expected, answer, score) => expect(chrf([{ expected, answer }])).toBeCloseTo(score, 8));

  const { pairs, whole } = JSON.parse(readFileSync(new URL("./goldens-eval/overlap.json", import.meta.url), "utf8")) as {
    readonly pairs: readonly { readonly expected: string; readonly answer: string; readonly chrf: number; readonly rougeL: number }[];
    readonly whole: { readonly chrf: number; readonly rougeL: number };
  };
  test.each(pairs)("sacreBLEU's chrF2 of $expected and $answer, and ROUGE-L of another implementation", (pair) => {
    expect(chrf([pair])).toBeCloseTo(pair.chrf, 8);
    expect(rougeL([pair])).toBeCloseTo(pair.rougeL, 10);
  });

  test("and of all pairs together", () => {
    expect(pairs.length).toBeGreaterThanOrEqual(50);
    expect(chrf(pairs)).toBeCloseTo(whole.chrf, 8);
    expect(rougeL(pairs)).toBeCloseTo(whole.rougeL, 10);
  });

  test("a normal form leaves case, punctuation and white space out", () =>
    expect(normalized(" The  CAT, sat!\n")).toBe(normalized("the cat sat")));

  test("JSON is compared value by value", () => {
    const pairs = [
      { expected: '{"a":1,"b":[2,3]}', answer: '{"b":[2,4],"a":1}' },
      { expected: '{"a":1}', answer: "a: 1" },
      { expected: "plain", answer: "plain" },
    ];
    expect(jsonScores(pairs)).toEqual({ rowCount: 2, validShare: 0.5, fieldShare: 2 / 4 });
    expect(jsonScores(pairs.slice(2))).toBeNull();
  });
});

describe("eval", () => {
  const put = (name: string, text: string): string => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };
  const data = put("rows.jsonl", '{"prompt":"a","completion":" b"}\n{"prompt":"c","completion":" d e"}\n');
  const run = (...args: readonly string[]): ReturnType<typeof lowrankHere> =>
    lowrankHere(["eval", "--model", model, "--data", data, "--device", "cpu", ...args]);

  test("writes each row's loss and answer, whose mean is the loss, and scores them with a module", async () => {
    const predictions = join(folder, "predictions.jsonl");
    const metric = put("words.mjs", "export default ({ expected, prompt }) => expected.split(' ').length + (prompt === 'a' ? 1 : 0);\n");
    const { code, stdout, stderr } = await run("--generate", "--predictions", predictions, "--metric", metric, "--json");
    expect(code, stderr).toBe(0);
    const result = JSON.parse(stdout) as { loss: number; metric: { name: string; mean: number }; rougeL: number };
    expect(result.metric).toEqual({ name: "words", mean: 2 });
    const rows = readFileSync(predictions, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { line: number; loss: number; tokens: number; prompt: string; expected: string; answer: string });
    expect(rows.map(({ line, tokens, prompt, expected }) => [line, tokens, prompt, expected])).toEqual([
      [1, 3, "a", "b"],
      [2, 5, "c", "d e"],
    ]);
    expect((3 * (rows[0]?.loss ?? 0) + 5 * (rows[1]?.loss ?? 0)) / 8).toBeCloseTo(result.loss, 5);
    // It is one of ours, and may be written anew; another is not.
    expect((await run("--predictions", predictions)).code).toBe(0);
    expect(await run("--predictions", metric)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/not a file that --predictions wrote/),
    });
  });

  test("keeps rows of several files apart, and answers the last turn of a conversation", async () => {
    const other = put("other.jsonl", '{"prompt":"x","completion":" y"}\n');
    const turns = ["a", "b", "c", "d e"].map((content, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content }));
    const chats = put("chats.jsonl", `${JSON.stringify({ messages: turns })}\n`);
    const asked = join(folder, "chat-model");
    cpSync(model, asked, { recursive: true });
    put(
      "chat-model/chat_template.jinja",
      "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}",
    );
    const predictions = join(folder, "several.jsonl");
    const { code, stderr } = await lowrankHere([
      ...["eval", "--model", asked, "--data", data, "--data", other, "--data", chats, "--generate"],
      ...["--predictions", predictions, "--device", "cpu"],
    ]);
    expect(code, stderr).toBe(0);
    const lines = readFileSync(predictions, "utf8").trim().split("\n");
    const written = lines.map((line) => JSON.parse(line) as { line: number; expected: string });
    expect(written.map(({ line, expected }) => [line, expected])).toEqual([
      [1, "b"],
      [2, "d e"],
      [1, "y"],
      [1, "d e"],
    ]);
  });

  test.each<[string, string, RegExp]>([
    ["has no default function", "export const score = 1;", /no function as its default export/],
    ["cannot be loaded", "export default (", /cannot be loaded/],
    ["fails", "export default () => { throw new Error('no'); };", /fails on line 1 \(no\)/],
    ["gives no number", "export default () => 'a';", /gives a for line 1, not a number/],
  ])("refuses a metric that %s", async (name, text, message) => {
    const { code, stderr } = await run("--generate", "--metric", put(`${name.replaceAll(" ", "-")}.mjs`, `${text}\n`));
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
  });
});
