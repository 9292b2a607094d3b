import { readFileSync } from "node:fs";
import { readTokenizer, Tokenizer, TokenizerError } from "@lowrank/models";
import { CheckpointError, type Json, memoryFiles, nodeFiles } from "@lowrank/tensor";
import { sharedDir } from "test-support";
import { describe, expect, test } from "vitest";
import { made } from "../../../../scripts/compare/made-tokenizers.mjs";
import { withAddedTokens } from "../../src/tokenizer/declared-tokens.js";

const words = ["<unk>", "<s>", "</s>", "user", "hello", "assistant"];
const json = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: [1, 2].map((id) => ({
    id,
    content: words[id],
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })),
  normalizer: null,
  pre_tokenizer: { type: "Whitespace" },
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
  },
  decoder: null,
  model: {
    type: "WordPiece",
    unk_token: "<unk>",
    continuing_subword_prefix: "##",
    vocab: Object.fromEntries(words.map((word, id) => [word, id])),
  },
};
const config = { bos_token: "<s>", eos_token: { content: "</s>" }, tokenizer_class: "PreTrainedTokenizerFast" };

describe("the tokenizer", () => {
  test("adds special tokens unless told not to, and knows their ids", () => {
    const tokenizer = new Tokenizer(json, config);
    expect(tokenizer.encode("hello user")).toEqual([1, 4, 3]);
    expect(tokenizer.encode("hello user", { addSpecialTokens: false })).toEqual([4, 3]);
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId, tokenizer.vocabSize, tokenizer.longestToken]).toEqual([
      1,
      2,
      null,
      6,
      9,
    ]);
    expect(tokenizer.decode([1, 4, 3, 2])).toBe("hello user");
    expect(tokenizer.decode([])).toBe("");
    expect([tokenizer.tokenId("hello"), tokenizer.tokenId("bye"), tokenizer.token(5)]).toEqual([4, null, "assistant"]);
  });

  test("numbers may be missing between tokens", () => {
    const token = { ...json.added_tokens[0], id: 9, content: "<late>" };
    const tokenizer = new Tokenizer({ ...json, added_tokens: [...json.added_tokens, token] }, config);
    expect([tokenizer.vocabSize, tokenizer.tokenId("<late>"), tokenizer.token(7)]).toEqual([10, 9, null]);
    expect(tokenizer.encode("hello<late>")).toEqual([1, 4, 9]);
  });

  test("renders a conversation through the checkpoint's template", () => {
    const template =
      "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    const tokenizer = new Tokenizer(json, { ...config, chat_template: [{ name: "default", template }] });
    expect(tokenizer.applyChatTemplate([{ role: "user", content: "hello" }], { addGenerationPrompt: true })).toBe(
      "<s>user: hello</s>\nassistant: ",
    );
    expect(() => new Tokenizer(json, config).applyChatTemplate([])).toThrow(CheckpointError);
  });

  test.skipIf(sharedDir("models") === null)("gives text back, with bytes that are in no word", async () => {
    const tokenizer = await readTokenizer(nodeFiles, sharedDir("models", "stories260K") as string);
    if (!tokenizer) return expect.fail("it ships a tokenizer");
    for (const text of ["Once upon a time", "Zürich — 東京 🦙", "two  spaces\nand a line"]) {
      expect(tokenizer.encode(text)[0]).toBe(1);
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    }
    expect(tokenizer.vocabSize).toBe(512);
    expect(tokenizer.chatTemplate).toBeNull();
  });
});

/** Offsets in code points, as Rust counts them. */
function inCodePoints(text: string, place: number): number {
  return [...text.slice(0, place)].length;
}

describe("texts have the tokens, the offsets and the decoding that the Rust tokenizers give them", () => {
  // Made by `node scripts/compare-tokenizers.mjs --write`; null where Rust fails.
  const golden = JSON.parse(readFileSync(new URL("goldens-rust.json", import.meta.url), "utf8")) as {
    readonly texts: readonly string[];
    readonly answers: Readonly<Record<string, readonly (Answer | null)[]>>;
  };
  type Answer = readonly [ids: number[], starts: number[], ends: number[], plain: number[], decoded: string, whole: string];
  test.each(Object.keys(made))("%s", (name) => {
    const tokenizer = new Tokenizer(made[name] as Json);
    for (const [i, text] of golden.texts.entries()) {
      const answer = golden.answers[name]?.[i];
      if (!answer) {
        expect(() => tokenizer.encode(text)).toThrow(TokenizerError);
        continue;
      }
      const [ids, starts, ends, plain, decoded, whole] = answer;
      const { ids: placed, offsets } = tokenizer.encodeWithOffsets(text);
      expect([tokenizer.encode(text), placed]).toEqual([ids, ids]);
      expect(offsets.map(([start]) => inCodePoints(text, start))).toEqual(starts);
      expect(offsets.map(([, end]) => inCodePoints(text, end))).toEqual(ends);
      expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(plain);
      expect([tokenizer.decode(ids), tokenizer.decode(plain, { skipSpecialTokens: false })]).toEqual([decoded, whole]);
    }
    expect(golden.texts.length).toBeGreaterThan(4);
  });

  test("a word of 100,000 letters takes no time that grows with its square", () => {
    const tokenizer = new Tokenizer(made["BPE, whole words first"] as Json);
    const time = (count: number): number => {
      const start = process.cpuUsage();
      tokenizer.encode("ab".repeat(count / 2));
      const { user, system } = process.cpuUsage(start);
      return (user + system) / 1e3;
    };
    time(1000);
    // Eight times as long may take eight times as long and some; a square would be 64 times.
    const short = Math.max(5, time(12_500));
    expect(time(100_000)).toBeLessThan(30 * short);
  });

  test.each([
    [
      "a class of which there is no table",
      { type: "Split", pattern: { Regex: "\\p{Runic}+" }, behavior: "Isolated" },
      /"\\p\{Runic\}", of which there is no table/,
    ],
    ["a group that is not known", { type: "Split", pattern: { Regex: "(?~a)" }, behavior: "Isolated" }, /the group "\(\?~"/],
    [
      "letters that may be one sign in another case",
      { type: "Split", pattern: { Regex: "(?i:st)" }, behavior: "Isolated" },
      /"st" that ignores case/,
    ],
    ["a sequence that is no list", { type: "Sequence", pretokenizers: {} }, /"pretokenizers" is not a list of objects/],
    ["a behavior that is not known", { type: "Punctuation", behavior: "Kept" }, /"behavior" is "Kept", known are Removed/],
    ["an object for a text", { type: "Metaspace", replacement: { toString: 1 } }, /"replacement" of the pre_tokenizer "Metaspace" is \{/],
    [
      "a part of a type that is an object",
      { type: "Sequence", pretokenizers: [{ type: { toString: 1 } }] },
      /"pre_tokenizer" is of the type \{"toString":1\}/,
    ],
    ["a split without its pattern", { type: "Split", behavior: "Isolated" }, /no pre_tokenizer "Split" can be made of its fields|pattern/],
    ["a part that is not known", { type: "UnicodeScripts" }, /"pre_tokenizer" is of the type "UnicodeScripts", which is not known/],
  ])("%s is refused by name", (_, part, says) => {
    const broken = { ...(made["words"] as Json), pre_tokenizer: part };
    expect(() => new Tokenizer(broken)).toThrow(CheckpointError);
    expect(() => new Tokenizer(broken)).toThrow(says);
  });

  test.each([
    [
      "a template",
      {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "x" } }, { Sequence: { id: "A" } }],
        special_tokens: { x: { ids: [-1] } },
      },
    ],
    ["the tokens around a text", { type: "BertProcessing", cls: ["x", -1], sep: ["y", 0] }],
  ])("a number below 0 in %s is refused", (_, part) => {
    expect(() => new Tokenizer({ ...(made["words"] as Json), post_processor: part })).toThrow(CheckpointError);
  });

  test("a token around texts counts for the size, whether the vocabulary has it or not", () => {
    const special_tokens = { x: { ids: [5000] } };
    const part = { type: "TemplateProcessing", single: [{ SpecialToken: { id: "x" } }, { Sequence: { id: "A" } }], special_tokens };
    expect(new Tokenizer({ ...(made["words"] as Json), post_processor: part }).vocabSize).toBe(5001);
  });

  test("half of a surrogate pair is the sign for what is no text", () => {
    const tokenizer = new Tokenizer(made["BPE, whole words first"] as Json);
    expect(tokenizer.decode(tokenizer.encode("a\ud83d b\ude00"))).toBe("a\ufffd b\ufffd");
    expect(tokenizer.encodeWithOffsets("a\ud83d").offsets.at(-1)).toEqual([1, 2]);
  });
});

describe("tokens that are declared beside tokenizer.json", () => {
  const decoder = { "9": { content: "<|im_end|>", special: true, normalized: false } };
  const cases: readonly (readonly [string, Json, number])[] = [
    ["added_tokens_decoder", { added_tokens_decoder: decoder, eos_token: "<|im_end|>" }, 9],
    ["additional_special_tokens", { additional_special_tokens: ["<|im_end|>"] }, 6],
    ["extra_special_tokens", { extra_special_tokens: { end: "<|im_end|>" } }, 6],
    ["extra_special_tokens as a list", { extra_special_tokens: [{ content: "<|im_end|>" }] }, 6],
  ];
  test.each(cases)("%s are known", (_, more, id) => {
    const tokenizer = new Tokenizer(json, { ...config, ...more });
    expect(tokenizer.encode("hello<|im_end|>")).toEqual([1, 4, id]);
    expect([tokenizer.tokenId("<|im_end|>"), tokenizer.token(id), tokenizer.vocabSize]).toEqual([id, "<|im_end|>", id + 1]);
    expect(tokenizer.decode([4, id])).toBe("hello");
  });

  test("added_tokens.json counts where tokenizer_config.json has no added_tokens_decoder", () => {
    const tokenizer = new Tokenizer(json, withAddedTokens({ ...config, eos_token: "<|end|>" }, { "<|end|>": 7, "<x>": 8 }));
    expect(tokenizer.encode("hello<|end|><x>", { addSpecialTokens: false })).toEqual([4, 7, 8]);
    expect([tokenizer.eosTokenId, tokenizer.decode([4, 7, 8])]).toEqual([7, "hello <x>"]);
    expect(withAddedTokens({ added_tokens_decoder: decoder }, { "<x>": 8 })).toEqual({ added_tokens_decoder: decoder });
  });

  test("a special token of the vocabulary that is named only in tokenizer_config.json is found in texts", () => {
    expect(new Tokenizer({ ...json, added_tokens: [] }, config).encode("hello</s>", { addSpecialTokens: false })).toEqual([4, 2]);
  });

  test("what tokenizer_config.json says of a known token counts", () => {
    const single = { "4": { content: "hello", single_word: true, special: false, normalized: false } };
    expect(
      new Tokenizer(json, { ...config, added_tokens_decoder: single }).encode("hellohello hello", { addSpecialTokens: false }),
    ).toEqual([0, 4]);
  });

  test("tokens under names of a model's own are known, and templates see them", () => {
    const own = {
      image_token: "<image>",
      extra_special_tokens: { end_token: "<|im_end|>" },
      chat_template: "{{ image_token }}{{ end_token }}{{ eos_token }}",
    };
    const tokenizer = new Tokenizer(json, { ...config, ...own, add_bos_token: true });
    expect(tokenizer.applyChatTemplate([{ role: "user", content: "hello" }])).toBe("<image><|im_end|></s>");
    expect(tokenizer.encode("<image>hello<|im_end|>", { addSpecialTokens: false })).toEqual([6, 4, 7]);
  });

  test.each<[string, Json, Json, string]>([
    ["before tokenizer_config.json", { eos_token: "user" }, { eos_token: "hello" }, "user"],
    ["behind it where that has tokens by number", { eos_token: "user" }, { eos_token: "hello", added_tokens_decoder: decoder }, "hello"],
  ])("special_tokens_map.json counts %s", async (_, special, more, expected) => {
    const files = memoryFiles({
      "m/tokenizer.json": JSON.stringify(json),
      "m/tokenizer_config.json": JSON.stringify(more),
      "m/special_tokens_map.json": JSON.stringify(special),
    });
    const tokenizer = await readTokenizer(files, "m");
    expect(tokenizer?.token(tokenizer.eosTokenId ?? -1)).toBe(expected);
  });

  test("an end token that the vocabulary lacks is an error that names it", () => {
    expect(() => new Tokenizer(json, { ...config, eos_token: "<|eot|>" })).toThrow(CheckpointError);
    expect(() => new Tokenizer(json, { ...config, eos_token: "<|eot|>" })).toThrow(
      /"eos_token" is "<\|eot\|>", which the vocabulary lacks/,
    );
  });
});
