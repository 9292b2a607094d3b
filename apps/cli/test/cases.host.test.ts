import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { initModel, loadModel, saveModel } from "@lowrank/models";
import { device, tensor } from "@lowrank/tensor";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { byteTokenizer, lowrankHere, scratchFolder } from "./cli.js";

const folder = scratchFolder();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Json = Readonly<Record<string, unknown>>;

const added = (id: number, content: string, more: Json = {}): Json => ({
  ...{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
  ...more,
});
/** Tokens of the models here besides bytes. */
const [end, joint, begin, turnEnd, cat] = [256, 257, 258, 259, 260];
const words: ReadonlyMap<string, number> = new Map([
  ["</s>", end],
  ["oo", joint],
  ["<s>", begin],
  ["<|end|>", turnEnd],
  ["⟨cat⟩", cat],
]);
/** A post-processor that puts the begin token in front of a text. */
const withBegin = {
  type: "TemplateProcessing",
  single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
  pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
  special_tokens: { "<s>": { id: "<s>", ids: [begin], tokens: ["<s>"] } },
};
const config = {
  ...{ model_type: "llama", vocab_size: 261, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2 },
  ...{ max_position_embeddings: 256, tie_word_embeddings: true, eos_token_id: end },
};
const weights = join(folder, "weights");
beforeAll(async () => {
  const dev = await device("cpu", { threads: 1 });
  await saveModel(await initModel(config, { device: dev, seed: 5 }), weights);
  dev.dispose();
});

/** What the files of a model say otherwise than the plain one's. */
interface Files {
  readonly config?: Json;
  readonly tokenizer?: Json;
  readonly tokenizerConfig?: Json;
  readonly generation?: Json;
}

let made = 0;
/** A model of one token a byte, with a token "oo", "<s>" and "</s>". */
function model({ config: more, tokenizer, tokenizerConfig, generation }: Files = {}): string {
  const place = join(folder, `model-${made++}`);
  mkdirSync(place);
  const put = (name: string, value: Json): void => writeFileSync(join(place, name), JSON.stringify(value));
  writeFileSync(join(place, "model.safetensors"), readFileSync(join(weights, "model.safetensors")));
  put("config.json", { ...config, ...more });
  const plain = byteTokenizer([["o", "o"]]);
  put("tokenizer.json", { ...plain, added_tokens: [added(end, "</s>"), added(begin, "<s>")], ...tokenizer });
  put("tokenizer_config.json", { tokenizer_class: "PreTrainedTokenizerFast", bos_token: "<s>", eos_token: "</s>", ...tokenizerConfig });
  if (generation) put("generation_config.json", generation);
  return place;
}

const data = (name: string, text: string | Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};
const jsonl = (rows: readonly Json[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
const said = (role: string, content: string, more: Json = {}): Json => ({ role, content, ...more });

/** The ids of a text by the tokens above. */
function idsOf(text: string): number[] {
  return text
    .split(/(<\/?s>|<\|end\|>|⟨cat⟩|oo)/)
    .flatMap((piece) => (words.has(piece) ? [words.get(piece) as number] : [...new TextEncoder().encode(piece)]));
}

/** Tokens, those in the loss, and the mean cross-entropy over these, of rows in which what is learned stands in ⟦ ⟧. */
async function expected(place: string, rows: readonly string[]): Promise<{ tokens: number; learned: number; loss: number }> {
  const dev = await device("cpu", { threads: 1 });
  const { model: loaded } = await loadModel(place, { device: dev });
  let [tokens, learned, sum] = [0, 0, 0];
  for (const row of rows) {
    const pieces = row.split(/([⟦⟧])/);
    let isLearned = false;
    const ids: number[] = [];
    const labels: boolean[] = [];
    for (const piece of pieces) {
      if (piece === "⟦" || piece === "⟧") isLearned = piece === "⟦";
      else
        for (const id of idsOf(piece)) {
          ids.push(id);
          labels.push(isLearned && ids.length > 1);
        }
    }
    tokens += ids.length;
    const logits = (await loaded.forward(tensor([ids], { device: dev, dtype: "i32" })).data()) as Float32Array;
    const size = logits.length / ids.length;
    for (const [i, isCounted] of labels.entries()) {
      if (!isCounted) continue;
      const before = logits.subarray((i - 1) * size, i * size);
      sum += Math.log(before.reduce((total, logit) => total + Math.exp(logit), 0)) - (before[ids[i] as number] as number);
      learned++;
    }
  }
  dev.dispose();
  return { tokens, learned, loss: sum / learned };
}

const evaluated = (place: string, file: string) => lowrankHere(["eval", "--model", place, "--data", file, "--device", "cpu", "--json"]);

const templates = {
  thought:
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ 'Bot:' + m['content'].split('</think>')[-1] + eos_token }}{% else %}{{ 'User:' + m['content'] + '\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Bot:<think>\\n' }}{% endif %}",
  firstMessage:
    "{% for m in messages %}{% set text = m['role'] + ':' + m['content'] + eos_token %}{{ bos_token + text if loop.first else text }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
  tools:
    "{% if tools %}{{ 'Tools:' + tools|tojson + '\\n' }}{% endif %}{% for m in messages %}{{ m['role'] + ':' + m['content'] + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
};
const chat = (template: string): Files => ({ tokenizerConfig: { chat_template: template } });
const tool = { type: "function", function: { name: "park" } };

/** A public fault, the files that show it, and what is right: each row's text with what is learned in ⟦ ⟧. */
type Case = readonly [name: string, files: Files, rows: readonly Json[], right: readonly string[], says?: string];

const cases: readonly Case[] = [
  [
    "a token that tokenizer_config.json alone adds is one, and ends rows",
    { tokenizerConfig: { eos_token: "<|end|>", added_tokens_decoder: { [turnEnd]: { content: "<|end|>", special: true } } } },
    [
      { prompt: "Who?", completion: " Lily<|end|>" },
      { prompt: "Who?", completion: " Tim" },
    ],
    ["Who?⟦ Lily<|end|>⟧", "Who?⟦ Tim<|end|>⟧"],
  ],
  [
    "an added token of a single word is not found inside others", // ⟨cat⟩ stands for that token
    {
      tokenizer: {
        added_tokens: [
          added(end, "</s>"),
          added(joint, "oo"),
          added(begin, "<s>"),
          added(turnEnd, "<|end|>"),
          added(cat, "cat", { single_word: true }),
        ],
      },
    },
    [{ text: "a cat in a category" }],
    ["⟦a ⟨cat⟩ in a category</s>⟧"],
  ],
  [
    "the end token that config.json alone names ends rows",
    { tokenizerConfig: { eos_token: undefined } },
    [{ prompt: "Who", completion: " I." }, { text: "Call me." }],
    ["Who⟦ I.</s>", "⟦Call me.</s>"],
  ],
  [
    "the first end token of generation_config.json goes before config.json's",
    { tokenizerConfig: { eos_token: undefined }, config: { eos_token_id: [66, end] }, generation: { eos_token_id: [end, 65] } },
    [{ prompt: "Who", completion: " I." }],
    ["Who⟦ I.</s>"],
  ],
  [
    "the tokenizer's end token goes before all others",
    { config: { eos_token_id: 66 }, generation: { eos_token_id: 65 } },
    [{ prompt: "Who", completion: " I." }],
    ["Who⟦ I.</s>"],
  ],
  [
    "rows without any end token are said to teach no end",
    { tokenizerConfig: { eos_token: undefined }, config: { eos_token_id: undefined } },
    [{ prompt: "Who", completion: " I." }],
    ["Who⟦ I."],
    "the tokenizer names no end token",
  ],
  [
    "the user's words are not learned where the generation prompt opens a thought that answers have not",
    chat(templates.thought),
    [{ messages: [said("user", " Hi"), said("assistant", " A dog."), said("user", " And?"), said("assistant", "<think>x</think> Two.")] }],
    ["<s>User: Hi\nBot:⟦ A dog.</s>⟧User: And?\nBot:⟦ Two.</s>⟧"],
  ],
  [
    "the user's words are not learned where the assistant begins",
    chat(templates.firstMessage),
    [{ messages: [said("assistant", " Welcome!"), said("user", " Hi."), said("assistant", " Once.")] }],
    ["<s>assistant:⟦ Welcome!</s>⟧user: Hi.</s>assistant:⟦ Once.</s>⟧"],
  ],
  [
    "an end token at the prompt's end stays the prompt's",
    {},
    [
      { prompt: "How?</s>", completion: "I am." },
      { prompt: "A</s>B</s>", completion: "C" },
    ],
    ["How?</s>⟦I am.</s>", "A</s>B</s>⟦C</s>"],
  ],
  [
    "nothing stands between prompt and completion, and a token across the border is learned",
    {},
    [
      { prompt: "def fo", completion: "o(): pass" },
      { prompt: "翻译：", completion: "你好" },
      { prompt: "Answer: ", completion: "yes" },
    ],
    ["def f⟦oo(): pass</s>", "翻译：⟦你好</s>", "Answer: ⟦yes</s>"],
    "1 row has the border between prompt and completion inside a token",
  ],
  [
    "a begin token in a row's text is not doubled",
    { tokenizer: { post_processor: withBegin } },
    [
      { prompt: "<s>Hi", completion: " you" },
      { prompt: "Hi", completion: " you" },
    ],
    ["<s>Hi⟦ you</s>", "<s>Hi⟦ you</s>"],
  ],
  [
    "tools reach the template, and a turn of weight 0 is not learned",
    chat(templates.tools),
    [
      { tools: [tool], messages: [said("user", " Where?"), said("assistant", " Here.")] },
      {
        messages: [
          ...[said("user", " Who?"), said("assistant", " A wrong answer.", { weight: 0 })],
          ...[said("user", " No."), said("assistant", " Lily.", { weight: 1 })],
        ],
      },
    ],
    [
      'Tools:[{"type": "function", "function": {"name": "park"}}]\nuser: Where?</s>assistant:⟦ Here.</s>⟧',
      "user: Who?</s>assistant: A wrong answer.</s>user: No.</s>assistant:⟦ Lily.</s>⟧",
    ],
  ],
];

describe("what is learned", () => {
  test.each(cases.map(([name, ...rest]) => [name, rest] as const))("%s", async (name, [files, rows, right, says = ""]) => {
    const place = model(files);
    const { code, stdout, stderr } = await evaluated(place, data(`${name}.jsonl`, jsonl(rows)));
    expect(code, stderr).toBe(0);
    const { tokens, learned, loss } = await expected(place, right);
    expect(stderr).toContain(`, ${tokens} tokens, ${learned} of them in the loss`);
    expect((JSON.parse(stdout) as { loss: number }).loss).toBeCloseTo(loss, 5);
    expect(stderr).toContain(says);
  });

  test("bytes that are not UTF-8 are refused with their line and place", async () => {
    const bytes = Buffer.from(
      jsonl([
        { prompt: "a", completion: "b" },
        { prompt: "caf\u00e9", completion: "c" },
      ]),
      "latin1",
    );
    const { code, stderr } = await evaluated(model(), data("latin.jsonl", bytes));
    const at = bytes.indexOf(0xe9);
    expect([code, stderr]).toEqual([2, expect.stringMatching(new RegExp(`latin\\.jsonl:2: the line is not UTF-8 text \\(byte ${at} `))]);
  });
});

describe("commands", () => {
  const rows = jsonl([
    { prompt: "a", completion: " b" },
    { prompt: "c", completion: " d" },
  ]);
  const trained = async (place: string, out: string, ...args: readonly string[]): Promise<string> => {
    const { code, stderr } = await lowrankHere([
      ...["train", "--model", place, "--data", data("train.jsonl", rows), "--out", join(folder, out), "--device", "cpu"],
      ...["--steps", "1", "--batch-size", "2", ...args],
    ]);
    expect(code, stderr).toBe(0);
    return join(folder, out);
  };

  test("generate --chat asks through the template, whose text has one begin token", async () => {
    const place = model({ ...chat(templates.thought), tokenizer: { post_processor: withBegin } });
    const asked = async (...args: readonly string[]): Promise<unknown> => {
      const { code, stdout, stderr } = await lowrankHere([
        ...["generate", "--model", place, "--max-new-tokens", "12", "--device", "cpu", "--json", ...args],
      ]);
      expect(code, stderr).toBe(0);
      return (JSON.parse(stdout) as { ids: unknown }).ids;
    };
    const answer = await asked("--chat", "--prompt", " Who?");
    expect(await asked("--raw", "--prompt", "<s>User: Who?\nBot:<think>\n")).toEqual(answer);
    expect(await asked("--raw", "--prompt", "User: Who?\nBot:<think>\n")).toEqual(answer);
  });

  test("generate stops at each end token of generation_config.json", async () => {
    const ids = async (generation?: Json): Promise<readonly number[]> => {
      const place = model(generation ? { generation } : {});
      const { code, stdout, stderr } = await lowrankHere([
        ...["generate", "--model", place, "--prompt", "Once", "--max-new-tokens", "20", "--device", "cpu"],
        ...["--temperature", "1", "--seed", "4", "--json"],
      ]);
      expect(code, stderr).toBe(0);
      return (JSON.parse(stdout) as { ids: readonly number[] }).ids;
    };
    const free = await ids();
    const stop = free.findIndex((id, i) => i > 3 && free.indexOf(id) === i);
    expect(stop).toBeGreaterThan(3);
    // The token is an ordinary one, and stays in the text.
    expect(await ids({ eos_token_id: [end, free[stop]] })).toEqual(free.slice(0, stop + 1));
  });

  test("generate counts virtual tokens where the context ends", async () => {
    const place = model({ config: { eos_token_id: undefined }, tokenizerConfig: { eos_token: undefined } });
    const adapter = await trained(place, "virtual", "--method", "prompt", "--virtual-tokens", "20");
    const { code, stderr } = await lowrankHere([
      ...["generate", "--model", place, "--adapter", adapter, "--prompt", "abcde", "--max-new-tokens", "500", "--device", "cpu"],
    ]);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain(`${256 - 20 - 5} tokens in`);
  });

  test("merge leaves out what the base's config.json says of a quantization that is gone", async () => {
    const place = model({ config: { quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true } } });
    const out = join(folder, "merged");
    const adapter = await trained(place, "adapter", "--rank", "2", "--targets", "q_proj");
    const { code, stderr } = await lowrankHere(["merge", "--model", place, "--adapter", adapter, "--out", out, "--device", "cpu"]);
    expect(code, stderr).toBe(0);
    expect(existsSync(join(out, "config.json"))).toBe(true);
    expect(JSON.parse(readFileSync(join(out, "config.json"), "utf8"))).not.toHaveProperty("quantization_config");
  });

  test("train --resume refuses other rows of the same name", async () => {
    const place = model();
    const file = data("same.jsonl", rows);
    const train = [
      ...["train", "--model", place, "--data", file, "--out", join(folder, "resumed"), "--device", "cpu"],
      ...["--steps", "3000", "--batch-size", "2", "--rank", "2", "--save-every", "2", "--targets", "q_proj"],
    ];
    expect((await lowrankHere(train, { stopAt: "step" })).code).toBe(130);
    data("same.jsonl", rows.replace(" d", " e"));
    const { code, stderr } = await lowrankHere([...train, "--resume"]);
    expect([code, stderr]).toEqual([2, expect.stringContaining("the rows of --data changed")]);
  });
});
