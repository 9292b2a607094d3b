import { readTokenizer, Tokenizer } from "@lowrank/models";
import { CheckpointError, nodeFiles } from "@lowrank/tensor";
import { sharedDir } from "test-support";
import { describe, expect, test } from "vitest";

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
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId, tokenizer.vocabSize]).toEqual([1, 2, null, 6]);
    expect(tokenizer.decode([1, 4, 3, 2])).toBe("hello user");
    expect(tokenizer.decode([])).toBe("");
    expect([tokenizer.tokenId("hello"), tokenizer.tokenId("bye"), tokenizer.token(5)]).toEqual([4, null, "assistant"]);
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
