import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { lowrank, lowrankHere, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model } = await tinyProject(folder, { layers: 1 });
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const put = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};
const template =
  "{% if tools %}T{{ tools | length }}{% endif %}{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}";
put("model/chat_template.jinja", template);
// A full stop ends a text, and belongs to it; so does every second letter of the alphabet.
put("model/generation_config.json", JSON.stringify({ eos_token_id: [256, 46] }));
const chats = put(
  "chats.json",
  JSON.stringify([
    {
      conversations: [
        { from: "human", value: "a" },
        { from: "gpt", value: "b" },
      ],
    },
  ]),
);

const ask = (...more: readonly string[]): string[] => [
  "generate",
  "--model",
  model,
  "--device",
  "cpu",
  "--max-new-tokens",
  "4",
  "--json",
  ...more,
];
const idsOf = async (...args: readonly string[]): Promise<number[]> => {
  const { code, stdout, stderr } = await lowrankHere(ask(...args));
  expect(code, stderr).toBe(0);
  return (JSON.parse(stdout) as { ids: number[] }).ids;
};

describe("generate", () => {
  test("asks through the chat template what the text that it writes asks", async () => {
    const opened = ["--chat", "--system", "s", "--message", "user:u", "--message", "assistant:v", "--prompt", "p"];
    expect(await idsOf(...opened)).toEqual(await idsOf("--raw", "--prompt", "<s>s<u>u<a>v</s><u>p<a>"));
    const tools = put("tools.json", '[{"name":"f"},{"name":"g"}]');
    expect(await idsOf("--chat", "--tools", tools, "--prompt", "p")).toEqual(await idsOf("--prompt", "T2<u>p<a>"));
  });

  test("tells ids and log-probabilities, which a greedy choice makes the largest", async () => {
    const { stdout } = await lowrankHere(ask("--prompt", "a"));
    const { ids, logProbabilities, tokens } = JSON.parse(stdout) as Record<"ids" | "logProbabilities", number[]> & { tokens: number };
    expect([ids.length, logProbabilities.length]).toEqual([tokens, tokens]);
    for (const value of logProbabilities) expect(value).toBeLessThan(0);
    // One of 257 tokens.
    for (const value of logProbabilities) expect(value).toBeGreaterThan(-Math.log(257) - 1e-6);
  });

  test("ends at a stop text, which is no part of the answer", async () => {
    const { stdout } = await lowrankHere(ask("--prompt", "a"));
    const { text } = JSON.parse(stdout) as { text: string };
    const stop = text.slice(1, 3);
    const stopped = JSON.parse((await lowrankHere(ask("--prompt", "a", "--stop", stop))).stdout) as { text: string; end: string };
    expect(stopped).toMatchObject({ text: text.slice(0, text.indexOf(stop)), end: "stop text" });
  });

  test.each<[string, readonly string[], RegExp]>([
    ["chat and raw", ["--chat", "--raw", "--prompt", "a"], /--chat and --raw contradict/],
    ["a system in raw text", ["--raw", "--system", "s", "--prompt", "a"], /are for a chat/],
    ["a message without a role", ["--message", "hello"], /Write ROLE:TEXT/],
    ["tools that are not JSON", ["--tools", chats.replace("chats", "none"), "--prompt", "a"], /no such file|cannot be read|ENOENT/i],
    ["nothing to answer", [], /--prompt is missing/],
    ["a penalty of 0", ["--prompt", "a", "--repetition-penalty", "0"], /--repetition-penalty is "0"/],
  ])("refuses %s", async (_, args, message) => {
    const { code, stderr } = await lowrankHere(ask(...args));
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
  });
});

describe("generate --schema", () => {
  const schema = put(
    "schema.json",
    `\ufeff${JSON.stringify({ type: "object", properties: { n: { type: "integer", minimum: 0, maximum: 99 }, t: { enum: ["a.b", "c"] } }, required: ["n", "t"] })}`,
  );
  interface Told {
    readonly text: string;
    readonly ids: number[];
    readonly end: string;
    readonly isComplete: boolean;
    readonly logProbabilities: number[];
  }
  const held = (...more: readonly string[]): string[] => {
    const asked = more.includes("--schema") ? more : ["--schema", schema, ...more];
    return ask("--prompt", "q:", ...asked).map((arg) => (arg === "4" ? "48" : arg));
  };
  const told = async (...more: readonly string[]): Promise<Told> => {
    const { code, stdout, stderr } = await lowrankHere(held(...more));
    expect(code, stderr).toBe(0);
    return JSON.parse(stdout) as Told;
  };

  test.each<[string, readonly string[]]>([
    ["with a penalty", ["--temperature", "1", "--repetition-penalty", "1.5"]],
    ["sampled", ["--temperature", "1.5", "--seed", "5"]],
    ["with top-k and top-p", ["--temperature", "2", "--top-k", "3", "--top-p", "0.9"]],
    ["with min-p, typical and a penalty", ["--temperature", "2", "--min-p", "0.2", "--typical", "0.9", "--repetition-penalty", "1.3"]],
  ])("holds answers of a random model to the schema, %s", async (_, more) => {
    const { text, end, isComplete, logProbabilities, ids } = await told(...more);
    expect(JSON.parse(text)).toEqual({ n: expect.any(Number), t: expect.stringMatching(/^(a\.b|c)$/) });
    expect([end, isComplete, logProbabilities.length]).toEqual(["complete JSON", true, ids.length]);
  });

  test("in a batch, each row for itself", async () => {
    const { results } = JSON.parse((await lowrankHere(held("--prompt", "another", "--temperature", "3"))).stdout) as { results: Told[] };
    expect(results.map(({ text }) => Object.keys(JSON.parse(text) as object))).toEqual([
      ["n", "t"],
      ["n", "t"],
    ]);
  });

  test("says that JSON is cut by the length or by a stop text", async () => {
    const short = await lowrankHere([...held("--stop", '"n"')]);
    expect(JSON.parse(short.stdout)).toMatchObject({ end: "stop text", isComplete: false });
    expect(short.stderr).toMatch(/the JSON is not complete: a stop text/);
    const cut = await lowrankHere(ask("--schema", schema, "--prompt", "q:"));
    expect(JSON.parse(cut.stdout)).toMatchObject({ end: "length", isComplete: false });
    expect(cut.stderr).toMatch(/not complete: --max-new-tokens/);
  });

  test("leaves tokens as they are where they fit already", async () => {
    const rows = put("json.jsonl", `${JSON.stringify({ prompt: "q:", completion: '{"n": 7, "t": "c"}' })}\n`);
    const run = join(folder, "json");
    const steps = ["--method", "full", "--steps", "80", "--lr", "1e-2", "--device", "cpu"];
    const trained = await lowrankHere(["train", "--model", model, "--data", rows, "--out", run, ...steps]);
    expect(trained.code, trained.stderr).toBe(0);
    const answer = async (...more: readonly string[]): Promise<Told> => {
      const { stdout, stderr } = await lowrankHere(held(...more).map((arg) => (arg === model ? run : arg)));
      expect(stderr).not.toMatch(/error/);
      return JSON.parse(stdout) as Told;
    };
    const anything = put("anything.json", "{}");
    const free = JSON.parse(
      (await lowrankHere(["generate", "--model", run, "--prompt", "q:", "--device", "cpu", "--json"])).stdout,
    ) as Told;
    expect(free.text).toBe('{"n": 7, "t": "c"}');
    expect([(await answer()).ids, (await answer("--schema", anything)).ids]).toEqual([free.ids, free.ids]);
  });

  test.each<[string, string, RegExp]>([
    ["what is no JSON", "{,}", /--schema .* is not JSON: .*Write a JSON schema/],
    ["a keyword that it does not know", '{"type":"string","pattern":"a"}', /error: The schema at # has "pattern".*Leave it out/],
    ["what nothing fits", "false", /takes no value at all/],
    ["a folder", "", /[^ ]+: this is a folder where a file is needed/],
  ])("refuses %s before a model is loaded", async (_, content, message) => {
    const args = [
      "generate",
      "--model",
      join(folder, "none"),
      "--prompt",
      "q",
      "--schema",
      content === "" ? folder : put("wrong.json", content),
    ];
    const { code, stderr } = await lowrankHere(args);
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
  });
});

test("an adapter that was trained on conversations is asked as it was taught", async () => {
  const run = join(folder, "run");
  const training = [
    "train",
    "--model",
    model,
    "--data",
    chats,
    "--rank",
    "2",
    "--targets",
    "q_proj",
    "--steps",
    "1",
    "--device",
    "cpu",
    "--out",
    run,
  ];
  const trained = await lowrankHere(training);
  expect(trained.code, trained.stderr).toBe(0);
  expect(trained.stdout).toMatch(/⟦b<\/s>⟧/);
  expect(readFileSync(join(run, "chat_template.jinja"), "utf8")).toBe(template);
  const asked = await lowrankHere(ask("--adapter", run, "--prompt", "p"));
  expect(asked.stderr).toContain("the adapter was trained on conversations");
  expect((JSON.parse(asked.stdout) as { ids: number[] }).ids).toEqual(await idsOf("--adapter", run, "--raw", "--prompt", "<u>p<a>"));
  // With a base of another template the adapter's is used, and this is said.
  put("model/chat_template.jinja", `other ${template}`);
  const other = await lowrankHere(ask("--adapter", run, "--prompt", "p"));
  put("model/chat_template.jinja", template);
  expect(other.stderr).toContain("was trained with another chat template");
  expect(other.stdout).toBe(asked.stdout);
});

test("chat answers line by line, begins anew, and saves what was said as a row", async () => {
  const saved = join(folder, "saved.jsonl");
  const input = ["hello", "/system s", "again", `/save ${saved}`, "/what", "/adapter", "x".repeat(99), "/exit", "never read"].join("\n");
  const { code, stdout, stderr } = await lowrank(["chat", "--model", model, "--device", "cpu", "--max-new-tokens", "3"], { input });
  expect(code, stderr).toBe(0);
  expect(stdout.match(/> /g)).toHaveLength(8);
  for (const says of [
    "a new conversation with this system message",
    "there is no /what",
    "there is no adapter",
    "error: the conversation has",
  ])
    expect(stderr).toContain(says);
  const { messages } = JSON.parse(readFileSync(saved, "utf8")) as { messages: { role: string; content: string }[] };
  expect(messages.map(({ role }) => role)).toEqual(["system", "user", "assistant"]);
  expect(messages[1]?.content).toBe("again");
  expect(stdout).toContain(messages[2]?.content ?? "none");
});

test("chat holds each answer to a schema, and says which the length cut", async () => {
  const saved = join(folder, "held.jsonl");
  const schema = put("held.json", '{"enum":["a.b","c"]}');
  const input = ["hello", "again", `/save ${saved}`, "/exit"].join("\n");
  const args = ["chat", "--model", model, "--device", "cpu", "--schema", schema];
  const whole = await lowrank([...args, "--max-new-tokens", "12"], { input });
  expect(whole.code, whole.stderr).toBe(0);
  const { messages } = JSON.parse(readFileSync(saved, "utf8")) as { messages: { role: string; content: string }[] };
  const answers = messages.filter(({ role }) => role === "assistant").map(({ content }) => JSON.parse(content) as unknown);
  expect(answers).toHaveLength(2);
  for (const answer of answers) expect(["a.b", "c"]).toContain(answer);
  const cut = await lowrank([...args, "--max-new-tokens", "2"], { input: "hello\n/exit" });
  expect(cut.code, cut.stderr).toBe(0);
  expect(cut.stderr).toMatch(/the JSON is not complete: --max-new-tokens/);
});
