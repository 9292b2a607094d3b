import { copyFileSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { lowrankHere as lowrank, lowrank as lowrankProcess, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train } = await tinyProject(folder);
const adapter = join(folder, "adapter");
const base = ["--device", "cpu", "--steps", "2", "--batch-size", "2", "--targets", "q_proj", "--rank", "2"];
const fresh = (): string => join(folder, `out-${Math.random().toString(36).slice(2)}`);
const trainWith = (extra: readonly string[], data = train, from = model): string[] => [
  "train",
  "--model",
  from,
  "--data",
  data,
  "--out",
  fresh(),
  ...base,
  ...extra,
];

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

/** A copy of the model in which something is wrong. */
function broken(name: string, change: (copy: string) => void): string {
  const copy = join(folder, name);
  cpSync(model, copy, { recursive: true });
  change(copy);
  return copy;
}

/** A safetensors file whose header is the given text. */
function safetensors(header: string, data = new Uint8Array(), length = header.length): Uint8Array {
  const bytes = new Uint8Array(8 + header.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(new TextEncoder().encode(header), 8);
  bytes.set(data, 8 + header.length);
  return bytes;
}

function withWeights(name: string, content: Uint8Array): string {
  return broken(name, (copy) => writeFileSync(join(copy, "model.safetensors"), content));
}

function withConfig(name: string, change: Record<string, unknown>): string {
  return broken(name, (copy) => {
    const path = join(copy, "config.json");
    writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...change }));
  });
}

beforeAll(async () => {
  const made = await lowrank(["train", "--model", model, "--data", train, "--out", adapter, ...base]);
  expect(made.code, made.stderr).toBe(0);
}, 60_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ask = (from: string): string[] => ["generate", "--model", from, "--prompt", "red", "--device", "cpu"];

/** What is wrong, the command, and words that its message must hold. */
const mistakes: readonly (readonly [name: string, args: () => readonly string[], words: readonly string[]])[] = [
  ["no such command", () => ["trian"], ["trian", "train"]],
  ["an unknown flag", () => trainWith(["--lerning-rate", "1"]), ["--lerning-rate"]],
  ["a flag without its value", () => ["train", "--model"], ["--model needs a value"]],
  ["a learning rate that is no number", () => trainWith(["--lr", "fast"]), ["--lr", "fast"]],
  ["a missing model", () => trainWith([], train, join(folder, "nowhere")), ["nowhere"]],
  ["a missing data file", () => trainWith([], join(folder, "nothing.jsonl")), ["nothing.jsonl"]],
  [
    "truncated weights",
    () => ask(withWeights("truncated", readFileSync(join(model, "model.safetensors")).subarray(0, 5000))),
    ["model.safetensors"],
  ],
  [
    "a header longer than the file",
    () => ask(withWeights("long-header", safetensors("{}", new Uint8Array(), 2 ** 40))),
    ["model.safetensors"],
  ],
  [
    "overlapping ranges",
    () =>
      ask(
        withWeights(
          "overlap",
          safetensors(
            '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
            new Uint8Array(12),
          ),
        ),
      ),
    ["model.safetensors"],
  ],
  [
    "an absurd shape",
    () =>
      ask(
        withWeights("absurd", safetensors('{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}', new Uint8Array(8))),
      ),
    ["model.safetensors"],
  ],
  [
    "a pickle instead of safetensors",
    () =>
      ask(
        broken("pickle", (copy) => {
          rmSync(join(copy, "model.safetensors"));
          writeFileSync(join(copy, "pytorch_model.bin"), "\x80\x02}q\x00.");
        }),
      ),
    ["pytorch_model.bin"],
  ],
  ["a config that is no JSON", () => ask(broken("config", (copy) => writeFileSync(join(copy, "config.json"), "{"))), ["config.json"]],
  ["a config that does not fit the weights", () => ask(withConfig("sizes", { hidden_size: 48 })), ["48"]],
  ["an unsupported architecture", () => ask(withConfig("mamba", { model_type: "mamba", architectures: ["MambaForCausalLM"] })), ["mamba"]],
  ["targets that match nothing", () => trainWith(["--targets", "query"]), ["query", "q_proj"]],
  ["targets of which one matches nothing", () => trainWith(["--targets", "q_proj,query"]), ["query", "q_proj"]],
  ["rank 0", () => trainWith(["--rank", "0"]), ["rank", "0"]],
  ["a negative rank", () => trainWith(["--rank", "-4"]), ["rank", "-4"]],
  [
    "an adapter for another base",
    () => {
      const other = join(folder, "other-adapter");
      mkdirSync(other, { recursive: true });
      copyFileSync(join(adapter, "adapter_config.json"), join(other, "adapter_config.json"));
      const header =
        '{"base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]}}';
      writeFileSync(join(other, "adapter_model.safetensors"), safetensors(header, new Uint8Array(32)));
      return ["generate", "--model", model, "--adapter", other, "--prompt", "red", "--device", "cpu"];
    },
    ["layers.9.self_attn.q_proj"],
  ],
  ["an empty data file", () => trainWith([], file("empty.jsonl", "")), ["empty.jsonl"]],
  ["bad JSON", () => trainWith([], file("bad.jsonl", '{"text":"red"}\n{"text":\n')), ["bad.jsonl:2"]],
  [
    "a row longer than the context",
    () => trainWith([], file("long.jsonl", `${JSON.stringify({ text: "red ".repeat(500) })}\n`)),
    ["long.jsonl:1", "64"],
  ],
  [
    "a row with nothing to learn from",
    () => trainWith([], file("nothing-to-learn.jsonl", '{"prompt":"red","completion":""}\n')),
    ["nothing-to-learn.jsonl:1"],
  ],
  ["a row of another kind", () => trainWith([], file("kind.jsonl", '{"question":"red"}\n')), ["kind.jsonl:1"]],
  [
    "token ids outside the model's vocabulary",
    () =>
      trainWith(
        [],
        train,
        broken("vocabulary", (copy) => {
          const path = join(copy, "tokenizer.json");
          const tokenizer = JSON.parse(readFileSync(path, "utf8")) as { model: { vocab: Record<string, number> } };
          for (const token of Object.keys(tokenizer.model.vocab)) tokenizer.model.vocab[token] = (tokenizer.model.vocab[token] ?? 0) + 500;
          writeFileSync(path, JSON.stringify(tokenizer));
        }),
      ),
    ["token", "256"],
  ],
  ["an output folder that holds a run", () => ["train", "--model", model, "--data", train, "--out", adapter, ...base], ["--resume"]],
  [
    "a resume with other settings",
    () => ["train", "--model", model, "--data", train, "--out", adapter, ...base, "--seed", "5", "--resume"],
    ["--seed"],
  ],
  [
    "a learning rate that blows up",
    () => trainWith(["--lr", "1e30", "--steps", "30", "--max-grad-norm", "0", "--schedule", "constant"]),
    ["tep ", "--lr"],
  ],
];

for (const [name, args, words] of mistakes) {
  test(`${name}: exit 2, fact and remedy, no stack`, async () => {
    const { code, stdout, stderr } = await lowrank(args());
    expect(code, `${stdout}\n${stderr}`).toBe(2);
    const message = stderr.slice(stderr.lastIndexOf("error: "));
    expect(message).toMatch(/^error: /);
    for (const word of words) expect(message).toContain(word);
    expect(message).not.toMatch(/^\s+at /m);
    // A fact and a remedy are at least two sentences.
    expect(
      message
        .trim()
        .split(/[.:;?](?:\s|$)/)
        .filter(Boolean).length,
    ).toBeGreaterThanOrEqual(2);
  });
}

test("a rank above what the layer can use is a warning, not an error", async () => {
  const { code, stderr } = await lowrank(trainWith(["--rank", "64"]));
  expect(code, stderr).toBe(0);
  expect(stderr).toContain("warning");
});

test("--memory that is too small names the least that works, in GB, and that works", async () => {
  const { code, stderr } = await lowrank(trainWith(["--memory", "0.0003"]));
  const [, named] = /Give --memory ([\d.]+) or more \(GB\)/.exec(stderr) ?? [];
  expect([code, Number(named)], stderr).toEqual([2, expect.any(Number)]);
  const again = await lowrank(trainWith(["--memory", String(named)]));
  expect(again.code, again.stderr).toBe(0);
});

test("--device webgpu without a GPU says what to install", async () => {
  const { code, stderr } = await lowrankProcess([...ask(model).filter((arg) => arg !== "cpu"), "webgpu"], {
    env: { VK_DRIVER_FILES: join(folder, "none.json"), VK_ICD_FILENAMES: join(folder, "none.json") },
  });
  expect(code, stderr).toBe(2);
  expect(stderr).toContain("mesa-vulkan-drivers");
});

test("a failed command leaves the run in its folder as it was", async () => {
  const before = readFileSync(join(adapter, "adapter_model.safetensors"));
  await lowrank(["train", "--model", model, "--data", join(folder, "empty.jsonl"), "--out", adapter, "--overwrite", ...base]);
  await lowrank(["train", "--model", model, "--data", train, "--out", adapter, "--overwrite", ...base, "--targets", "query"]);
  expect(readFileSync(join(adapter, "adapter_model.safetensors")).equals(before)).toBe(true);
});
