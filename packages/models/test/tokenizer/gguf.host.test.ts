import { readFileSync } from "node:fs";
import { join } from "node:path";
import { bytesSource, CheckpointError, type GgufValue, readGguf } from "@lowrank/tensor";
import { sharedDir } from "test-support";
import { describe, expect, test } from "vitest";
import { preTokenizerKinds } from "../../src/tokenizer/gguf/kinds.js";
import { mergesOfScores, scoresOfMerges } from "../../src/tokenizer/gguf/merges.js";
import { ggufTokenizer } from "../../src/tokenizer/gguf/read.js";
import { tokenizerMetadata } from "../../src/tokenizer/gguf/write.js";
import { Tokenizer } from "../../src/tokenizer/tokenizer.js";

const [normal, unknown, control, user, unused, byte] = [1, 2, 3, 4, 5, 6];

/** Letters, words of them, and special tokens: byte-level. */
const bytes: Readonly<Record<string, GgufValue>> = {
  "tokenizer.ggml.model": "gpt2",
  "tokenizer.ggml.pre": "smollm",
  "tokenizer.ggml.tokens": ["a", "b", "c", "Ġ", "1", "2", "ab", "Ġab", "Ġc", "12", "<|im_end|>", "<tool>", "[PAD12]", "Ċ"],
  "tokenizer.ggml.token_type": Int32Array.from([...Array(10).fill(normal), control, user, unused, normal]),
  "tokenizer.ggml.merges": ["a b", "Ġ ab", "Ġ c", "1 2"],
  "tokenizer.ggml.eos_token_id": 10,
};
/** Of SentencePiece: scores, bytes, a row of spaces that a user defined. */
const pieces: Readonly<Record<string, GgufValue>> = {
  "tokenizer.ggml.model": "llama",
  "tokenizer.ggml.pre": "default",
  "tokenizer.ggml.tokens": [
    "<unk>",
    "<s>",
    "</s>",
    "<0x0A>",
    "<0xC3>",
    "<0xA9>",
    "▁",
    "a",
    "b",
    "ab",
    "▁ab",
    "▁a",
    "  ",
    "<0x00>",
    "[PAD14]",
  ],
  "tokenizer.ggml.token_type": Int32Array.from([unknown, control, control, byte, byte, byte, ...Array(6).fill(normal), user, byte, unused]),
  "tokenizer.ggml.scores": Float32Array.from([0, 0, 0, 0, 0, 0, -10, -11, -12, -1, -2, -0.5, -1000, 0, -1000]),
  "tokenizer.ggml.bos_token_id": 1,
  "tokenizer.ggml.eos_token_id": 2,
  "tokenizer.ggml.unknown_token_id": 0,
};

function opened(fields: Readonly<Record<string, GgufValue>>): Tokenizer {
  const { json, config, template } = ggufTokenizer(new Map(Object.entries(fields)), "x.gguf") ?? expect.unreachable();
  return new Tokenizer(json, config, template);
}

const encodings: readonly (readonly [what: string, fields: Readonly<Record<string, GgufValue>>, text: string, ids: readonly number[]])[] = [
  ["words by merges, digits apart", bytes, "ab ab c12", [6, 7, 8, 4, 5]],
  ["another pre-tokenizer keeps digits together", { ...bytes, "tokenizer.ggml.pre": "gpt-2" }, "12", [9]],
  ["control tokens and a user's are found in the text", bytes, "a<tool>b<|im_end|>", [0, 11, 1, 10]],
  ["the end token where the file says so", { ...bytes, "tokenizer.ggml.add_eos_token": true }, "a", [0, 10]],
  [
    "the begin token of a pre-tokenizer that has one",
    { ...bytes, "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": 11 },
    "a",
    [11, 0],
  ],
  [
    "and not where the file says no",
    { ...bytes, "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": 11, "tokenizer.ggml.add_bos_token": false },
    "a",
    [0],
  ],
  ["scores order the merges: ▁a before ab", pieces, "aab", [1, 11, 9]],
  ["without a space in front", { ...pieces, "tokenizer.ggml.add_space_prefix": false }, "ab", [1, 9]],
  ["bytes for what is no token", pieces, "a\né", [1, 11, 3, 4, 5]],
  ["a row of spaces that a user defined", { ...pieces, "tokenizer.ggml.add_space_prefix": false }, "a  b", [1, 7, 12, 8]],
  ["spaces taken together", { ...pieces, "tokenizer.ggml.remove_extra_whitespaces": true }, "  a   a ", [1, 11, 11]],
  ["without the begin token", { ...pieces, "tokenizer.ggml.add_bos_token": false }, "a", [11]],
];
test.each(encodings)("%s", (_, fields, text, ids) => expect(opened(fields).encode(text)).toEqual(ids));

test("padding up to the size of the embeddings is no token", () => {
  const tokenizer = opened(bytes);
  expect([tokenizer.tokenId("[PAD12]"), tokenizer.vocabSize]).toEqual([null, 14]);
  expect(opened(pieces).decode([11, 8, 3, 4, 5])).toBe("ab\né");
});

test("chat templates: one, or several by name; tokens that end turns", () => {
  const one = { ...bytes, "tokenizer.chat_template": "{{ messages[0].content }}<|im_end|>" };
  const metadata = (fields: Readonly<Record<string, GgufValue>>) => new Map(Object.entries(fields));
  expect(opened(one).applyChatTemplate([{ role: "user", content: "a" }])).toBe("a<|im_end|>");
  const several = { ...one, "tokenizer.chat_template.tool_use": "tools", "tokenizer.chat_templates": ["tool_use"] };
  expect(opened(several).applyChatTemplate([], { tools: [{}] })).toBe("tools");
  expect(ggufTokenizer(metadata({ ...one, "tokenizer.ggml.eos_token_id": 11 }), "x")?.ends).toEqual([11, 10]);
  expect(ggufTokenizer(metadata({ ...bytes, "tokenizer.ggml.eot_token_id": 11 }), "x")?.ends).toEqual([10, 11]);
  expect(ggufTokenizer(new Map(), "x")).toBeNull();
  expect(ggufTokenizer(metadata({ "tokenizer.ggml.model": "no_vocab" }), "x")).toBeNull();
});

test("a whole tokenizer.json in the metadata goes before the rest", () => {
  const { json } = ggufTokenizer(new Map(Object.entries(pieces)), "x") ?? expect.unreachable();
  const { "tokenizer.ggml.eos_token_id": _, ...fields } = bytes;
  expect(opened({ ...fields, "tokenizer.huggingface.json": JSON.stringify(json) }).encode("ab")).toEqual([1, 10]);
});

const refused: readonly (readonly [what: string, fields: Readonly<Record<string, GgufValue>>, says: RegExp])[] = [
  [
    "an unknown pre-tokenizer",
    { ...bytes, "tokenizer.ggml.pre": "of-tomorrow" },
    /x\.gguf: the pre-tokenizer "of-tomorrow" is not known .*tokenizer\.json beside/,
  ],
  [
    "another model of tokenizers",
    { ...bytes, "tokenizer.ggml.model": "t5" },
    /of the model "t5", and "gpt2", "llama" and "gemma4" are read/,
  ],
  ["no tokens", { "tokenizer.ggml.model": "gpt2" }, /"tokenizer\.ggml\.tokens" is missing/],
  ["no merges", { ...bytes, "tokenizer.ggml.merges": 3 }, /"tokenizer\.ggml\.merges" is 3, not a list of texts/],
  ["fewer scores than tokens", { ...pieces, "tokenizer.ggml.scores": new Float32Array(3) }, /has 3 scores for 15 tokens/],
  [
    "types that are texts",
    { ...bytes, "tokenizer.ggml.token_type": ["a"] },
    /"tokenizer\.ggml\.token_type" is a list, not a list of numbers/,
  ],
  ["a broken tokenizer.json", { ...bytes, "tokenizer.huggingface.json": "{" }, /"tokenizer\.huggingface\.json" is no JSON object/],
  ["a merge of what is no token", { ...bytes, "tokenizer.ggml.merges": ["a z"] }, /"model\.merges" makes the token/],
];
test.each(refused)("%s is refused by name", (_, fields, says) => {
  expect(() => opened(fields)).toThrow(CheckpointError);
  expect(() => new Tokenizer(ggufTokenizer(new Map(Object.entries(fields)), "x.gguf")?.json ?? {}, {}, null, "x.gguf")).toThrow(says);
});

test("a token without a text, one that is there twice, and a special one that is none, stand for nothing", () => {
  const tokens = [...(bytes["tokenizer.ggml.tokens"] as string[]), "", "a"];
  const tokenizer = opened({ ...bytes, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.bos_token_id": 4294967295 });
  expect([tokenizer.tokenId("a"), tokenizer.token(14), tokenizer.token(15), tokenizer.bosTokenId]).toEqual([
    0,
    "[EMPTY_14]",
    "[DUPLICATE_15]",
    null,
  ]);
});

describe("written as metadata and read again", () => {
  const again = (tokenizer: Tokenizer, fields: Readonly<Record<string, GgufValue>>, size: number) => {
    const { json, config } = ggufTokenizer(new Map(Object.entries(fields)), "x") ?? expect.unreachable();
    return tokenizerMetadata({ json, config, tokenizer, size, architecture: "llama" }, "x");
  };

  test("byte-level", () => {
    const fields = { ...bytes, "tokenizer.chat_template": "x", "tokenizer.chat_template.rag": "y", "tokenizer.chat_templates": ["rag"] };
    const metadata = again(opened(fields), fields, 16);
    expect(Object.fromEntries(metadata)).toEqual({
      ...fields,
      "tokenizer.ggml.pre": "smollm",
      "tokenizer.ggml.tokens": [...(bytes["tokenizer.ggml.tokens"] as string[]), "[PAD14]", "[PAD15]"],
      "tokenizer.ggml.token_type": Int32Array.from([...(bytes["tokenizer.ggml.token_type"] as Int32Array), unused, unused]),
      "tokenizer.ggml.add_bos_token": false,
      "tokenizer.ggml.add_eos_token": false,
    });
  });

  test("SentencePiece: other scores in the same order", () => {
    const metadata = again(opened(pieces), pieces, 15);
    const { "tokenizer.ggml.scores": scores, ...rest } = Object.fromEntries(metadata);
    expect(rest).toEqual({
      ...Object.fromEntries(Object.entries(pieces).filter(([key]) => key !== "tokenizer.ggml.scores")),
      "tokenizer.ggml.add_bos_token": true,
      "tokenizer.ggml.add_eos_token": false,
      "tokenizer.ggml.add_space_prefix": true,
    });
    const made = opened({ ...pieces, "tokenizer.ggml.scores": scores as Float32Array });
    for (const [, , text] of encodings) expect(made.encode(text)).toEqual(opened(pieces).encode(text));
  });

  test.each(preTokenizerKinds.map((kind) => [kind.names[0] ?? "", kind] as const))(
    "the pre-tokenizer %s has a name that splits alike",
    (name, kind) => {
      const fields = { ...bytes, "tokenizer.ggml.pre": name };
      const written = again(opened(fields), fields, 14).get("tokenizer.ggml.pre");
      const found = preTokenizerKinds.find(({ names }) => names.includes(String(written)));
      expect([found?.splits, found?.normalizer, found?.ignoresMerges]).toEqual([kind.splits, kind.normalizer, kind.ignoresMerges]);
    },
  );

  test("no two pre-tokenizers have one name", () => {
    const names = preTokenizerKinds.flatMap((kind) => kind.names);
    expect(new Set(names).size).toBe(names.length);
  });

  test("what llama.cpp has no name for is refused", () => {
    const { json } = ggufTokenizer(new Map(Object.entries(bytes)), "x") ?? expect.unreachable();
    const other = { ...json, pre_tokenizer: { type: "Whitespace" } };
    const tokenizer = new Tokenizer(other);
    expect(() => tokenizerMetadata({ json: other, config: {}, tokenizer, size: 14, architecture: "llama" }, "t")).toThrow(
      /llama\.cpp has no pre-tokenizer/,
    );
    const words = { ...json, model: { type: "WordLevel", vocab: { a: 0, "[UNK]": 1 }, unk_token: "[UNK]" }, added_tokens: [] };
    expect(() =>
      tokenizerMetadata({ json: words, config: {}, tokenizer: new Tokenizer(words), size: 2, architecture: "llama" }, "t"),
    ).toThrow(/is a WordLevel, and only BPE/);
  });
});

test("merges of scores: the higher first, the longer first part first, a user's before all", () => {
  const tokens = ["a", "b", "aa", "ab", "aab", "zz", "z"];
  const types = Int32Array.from([1, 1, 1, 1, 1, 4, 1]);
  const merges = mergesOfScores({ tokens, types, scores: Float32Array.from([-9, -9, -2, -1, -3, -1000, -9]) });
  expect(merges).toEqual([
    ["z", "z"],
    ["a", "b"],
    ["a", "a"],
    ["aa", "b"],
    ["a", "ab"],
  ]);
  expect(scoresOfMerges(tokens, merges)).toEqual(Float32Array.from([-4, -4, -2, -1, -3, -0, -4]));
});

const shared = sharedDir("gguf");
describe.skipIf(shared === null)("../shared/gguf/llama.gguf", async () => {
  if (shared === null) return;
  const { metadata } = await readGguf(bytesSource(new Uint8Array(readFileSync(join(shared, "llama.gguf"))), "llama.gguf"));
  const { texts } = JSON.parse(readFileSync(join(shared, "llama.json"), "utf8")) as {
    texts: readonly { text: string; ids: readonly number[] }[];
  };
  const tokenizer = opened(Object.fromEntries(metadata));
  test.each(texts)("$text has transformers' and llama.cpp's ids", ({ text, ids }) => {
    expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(ids);
    expect(tokenizer.encode(text)).toEqual([285, ...ids]);
  });
  test("its special tokens and its template", () => {
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId]).toEqual([285, 286]);
    expect(tokenizer.applyChatTemplate([{ role: "user", content: "Hi" }])).toBe("user: Hi\n");
  });
});
