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
