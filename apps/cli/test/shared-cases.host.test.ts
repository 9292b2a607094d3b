import { copyFileSync, existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { lowrankHere, scratchFolder } from "./cli.js";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const cases = at("../../../../shared/cases");
const stories = at("../../../../shared/models/stories260K");
const models: Readonly<Record<string, string>> = { stories260K: stories, "the base model": at("../../../examples/base-model/model") };
const isThere = existsSync(cases) && existsSync(stories);
if (!isThere) process.stderr.write("shared-cases: skipped, ../shared/cases and ../shared/models/stories260K are not there\n");

const folder = scratchFolder();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What `eval` says of rows: tokens, those of them in the loss, the loss as transformers 5.18 has it (null where the case names none). */
type Evaluated = readonly [tokens: number, learned: number, loss: number | null];

describe.skipIf(!isThere)("public faults, as their cases have them right", () => {
  test.each<[name: string, model: string, rows: string, right: Evaluated]>([
    ["added-token-only-in-tokenizer-config", "model", "rows.jsonl", [22, 4, 9.7892]],
    ["added-token-single-word", "model", "rows.jsonl", [10, 9, null]],
    ["gpt2-no-end-token", "model", "rows.jsonl", [15, 8, 6.9269]],
    ["messages-everything-in-the-loss", "model", "rows.jsonl", [97, 23, 3.7723]],
    ["messages-everything-in-the-loss", "model-greeting", "greeting.jsonl", [58, 20, 4.5133]],
    ["prompt-that-ends-with-the-end-token", "the base model", "rows.jsonl", [17, 7, 6.9284]],
    ["space-put-between-prompt-and-completion", "stories260K", "rows.jsonl", [14 + 18 + 11, 19, null]],
    ["tools-and-weight-ignored", "model", "rows.jsonl", [197, 18 - 14 + 7, null]],
  ])("%s, %s", async (name, model, rows, [tokens, learned, loss]) => {
    const place = (path: string): string => models[path] ?? join(cases, name, path);
    const { code, stdout, stderr } = await lowrankHere([
      ...["eval", "--model", place(model), "--data", place(rows), "--device", "cpu", "--json"],
    ]);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain(`, ${tokens} tokens, ${learned} of them in the loss`);
    if (loss !== null) expect((JSON.parse(stdout) as { loss: number }).loss).toBeCloseTo(loss, 4);
  });

  test("data-not-utf8-read-as-question-marks", async () => {
    const data = join(cases, "data-not-utf8-read-as-question-marks", "rows.jsonl");
    const { code, stderr } = await lowrankHere(["eval", "--model", stories, "--data", data, "--device", "cpu"]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/rows\.jsonl:1: the line is not UTF-8 text \(byte 14 of the file/)]);
  });

  test("generate-has-no-chat-template-and-doubles-bos: a template's text is given no second begin token", async () => {
    const { code, stdout, stderr } = await lowrankHere([
      ...["generate", "--model", join(cases, "generate-has-no-chat-template-and-doubles-bos", "model")],
      ...["--prompt", "<s>User: Who is Lily?\nBot: ", "--max-new-tokens", "20", "--device", "cpu"],
    ]);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("Do you want to see what I have a speci");
  });

  test.each<[name: string, args: readonly string[], ids: number, text: string]>([
    [
      "generate-has-no-chat-template-and-doubles-bos",
      ["--chat", "--prompt", "Who is Lily?", "--max-new-tokens", "20"],
      20,
      "Do you want to see what I have a speci",
    ],
    [
      "generate-stops-at-one-end-token-only",
      ["--prompt", "Once upon a time", "--max-new-tokens", "30"],
      11,
      ", there was a little girl named Lily.",
    ],
  ])("%s", async (name, args, count, right) => {
    const command = ["generate", "--model", join(cases, name, "model"), ...args, "--device", "cpu", "--json"];
    const { code, stdout, stderr } = await lowrankHere(command);
    expect(code, stderr).toBe(0);
    const { text, ids } = JSON.parse(stdout) as { text: string; ids: readonly number[] };
    expect([text, ids.length]).toEqual([right, count]);
  });

  test("generate-with-virtual-tokens-crashes", async () => {
    const { code, stderr } = await lowrankHere([
      ...["generate", "--model", stories, "--adapter", join(cases, "generate-with-virtual-tokens-crashes", "run")],
      ...["--prompt", "Once upon a time", "--max-new-tokens", "500", "--device", "cpu"],
    ]);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/^487 tokens in/m);
  });

  test("merge-keeps-quantization-config", async () => {
    const [place, out] = [join(cases, "merge-keeps-quantization-config"), join(folder, "merged")];
    const { code, stderr } = await lowrankHere([
      ...["merge", "--model", join(place, "model"), "--adapter", join(place, "adapter"), "--out", out, "--device", "cpu"],
    ]);
    expect(code, stderr).toBe(0);
    expect(JSON.parse(readFileSync(join(out, "config.json"), "utf8"))).not.toHaveProperty("quantization_config");
  });

  test("resume-with-other-data", async () => {
    const data = join(folder, "data.jsonl");
    const train = [
      ...["train", "--model", stories, "--data", data, "--steps", "3000", "--batch-size", "2", "--save-every", "2"],
      ...["--out", join(folder, "run"), "--device", "cpu"],
    ];
    copyFileSync(join(cases, "resume-with-other-data", "first.jsonl"), data);
    expect((await lowrankHere(train, { stopAt: "step" })).code).toBe(130);
    copyFileSync(join(cases, "resume-with-other-data", "second.jsonl"), data);
    const { code, stderr } = await lowrankHere([...train, "--resume"]);
    expect([code, stderr]).toEqual([2, expect.stringContaining("the rows of --data changed")]);
  });
});
