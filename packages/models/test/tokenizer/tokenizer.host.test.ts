import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { readTokenizer, Tokenizer } from "@lowrank/models";
import { CheckpointError, nodeFiles } from "@lowrank/tensor";
import fc from "fast-check";
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

  const sentencePiece = (merges: readonly string[], options = {}): Readonly<Record<string, unknown>> => ({
    ...json,
    normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
    pre_tokenizer: null,
    model: {
      type: "BPE",
      unk_token: "<unk>",
      fuse_unk: true,
      ignore_merges: false,
      merges,
      vocab: Object.fromEntries(
        [...new Set(["<unk>", "<s>", "</s>", ..."▁abcd", ...merges.map((merge) => merge.replace(" ", ""))])].map((token, id) => [
          token,
          id,
        ]),
      ),
      ...options,
    },
  });
  const spellings: Readonly<Record<string, ReturnType<typeof sentencePiece>>> = {
    "no merge goes on after a word": sentencePiece(["▁ a", "a b", "▁a b", "▁ ▁", "▁▁ ▁▁", "c d", "b c", "▁▁ a", "ab cd"]),
    "a merge joins a word to the space after it": sentencePiece(["a ▁", "▁ a", "b ▁", "a▁ b", "a b"]),
    "words that the vocabulary has are not merged": sentencePiece(["▁ a", "a b", "b ▁"], { ignore_merges: true }),
  };
  for (const [name, spelling] of Object.entries(spellings)) {
    test(`takes a text word by word only where that gives the same tokens: ${name}`, () => {
      const [ours, whole] = [new Tokenizer(spelling, config), new HuggingFaceTokenizer(spelling, config)];
      // Every character of some is unknown; unknown ones in a row are one token.
      const text = fc.array(fc.constantFrom(..." abcdxé🦙", "</s>", "  ", "ab"), { maxLength: 40 }).map((parts) => parts.join(""));
      fc.assert(fc.property(text, (given) => void expect(ours.encode(given)).toEqual(whole.encode(given).ids)));
    });
  }
});
