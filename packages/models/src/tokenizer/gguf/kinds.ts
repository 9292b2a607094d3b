import type { Json } from "@lowrank/tensor";
import * as by from "./expressions.js";

/** How a tokenizer's texts are split before its merges, under the names that llama.cpp has for it. */
export interface PreTokenizerKind {
  /** Values of `tokenizer.ggml.pre`. */
  readonly names: readonly string[];
  /** What tokenizer.json has in its place; null for texts that stay as they are. */
  readonly normalizer: Json | null;
  /** Parts of a Sequence, one after another. */
  readonly splits: readonly Json[];
  /** Whether a word that is a token is that token, whatever the merges say. */
  readonly ignoresMerges: boolean;
  /** Whether the begin token is put in front where the file does not say. */
  readonly beginsTexts: boolean;
}

const byteLevel = (usesRegex: boolean): Json => ({
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: usesRegex,
});
const split = (expression: string): Json => ({
  type: "Split",
  pattern: { Regex: expression },
  behavior: "Isolated",
  invert: false,
});
const digits: Json = { type: "Digits", individual_digits: true };

/** Splits by expressions, one after another, whose words become bytes then. */
const splitBy = (...expressions: readonly string[]): readonly Json[] => [...expressions.map(split), byteLevel(false)];

/** GPT-2's words. */
const gpt2 = [byteLevel(true)];
const digitsThenGpt2 = [digits, byteLevel(true)];
const nfc: Json = { type: "NFC" };

const kind = (names: string, splits: readonly Json[], more: Partial<PreTokenizerKind> = {}): PreTokenizerKind => ({
  names: names.split(" "),
  normalizer: null,
  splits,
  ignoresMerges: false,
  beginsTexts: false,
  ...more,
});

/**
 * Pre-tokenizers of byte-level vocabularies. The parts are those of the tokenizer.json of each model where that is known (of those that a comparison in
 * scripts/compare-gguf.mjs reads, bit for bit); of the others, the expressions of llama.cpp, split by in turn. Names and flags: llama-vocab.cpp.
 */
export const preTokenizerKinds: readonly PreTokenizerKind[] = [
  kind("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", splitBy(by.llama3), {
    ignoresMerges: true,
    beginsTexts: true,
  }),
  kind("dbrx smaug-bpe glm4 chatglm-bpe", splitBy(by.llama3)),
  kind("qwen2 deepseek-r1-qwen kormo f2llmv2 megrez", splitBy(by.qwen2), { normalizer: nfc }),
  kind("stablelm2 hunyuan solar-open grok-2", splitBy(by.qwen2)),
  kind("qwen35", splitBy(by.qwen35), { normalizer: nfc }),
  kind("gpt-4o llama4 kanana2 talkie", splitBy(by.gpt4o), { ignoresMerges: true }),
  kind("minimax-m2", splitBy(by.gpt4o)),
  kind("tekken", splitBy(by.tekken), { ignoresMerges: true, beginsTexts: true }),
  kind("deepseek-v3 hunyuan-dense joyai-llm hy_v4", splitBy(...by.deepseekV3)),
  kind("deepseek-llm", [...by.deepseekLlm.map(split), digits, byteLevel(false)]),
  kind("deepseek-coder", [...by.deepseekCoder.map(split), digits, byteLevel(false)]),
  kind("gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert jais trillion exaone4 granite-docling", gpt2),
  kind("olmo mpt", gpt2, { normalizer: nfc }),
  kind("smollm starcoder refact codeshell exaone minerva-7b mellum2", digitsThenGpt2),
  kind("command-r", digitsThenGpt2, { normalizer: nfc }),
  kind("falcon", [
    { type: "Punctuation", behavior: "Contiguous" },
    byteLevel(true),
    { type: "Digits", individual_digits: false },
    split("[0-9][0-9][0-9]"),
  ]),
  kind("bloom gpt3-finnish poro-chat", splitBy(by.bloom)),
  kind("viking", [split(by.bloom), digits, byteLevel(false)]),
  kind("kimi-k2 kimi-k25", splitBy(by.kimi)),
  kind("tiny_aya cohere2moe", splitBy(by.thousands, by.gpt4o)),
  kind("superbpe", splitBy(...by.superbpe)),
  kind("bailingmoe bailingmoe2 llada-moe", splitBy(by.bailing)),
  kind("seed-coder", splitBy(by.seedCoder)),
  kind("minicpm5", splitBy(String.raw`\p{N}{1,3}`, by.minicpm5), { ignoresMerges: true }),
  kind("laguna", splitBy("[^\\n]+|[\\n]+", by.qwen2)),
  kind("youtu", splitBy(...by.youtu), { ignoresMerges: true }),
  kind("spark2_5", splitBy(...by.spark)),
  kind("ufakzeka", splitBy(by.ufakzeka)),
  kind("default", splitBy(...by.unnamed)),
];

/** Names of vocabularies whose merges are of texts with ▁ for spaces, under the model `gpt2`: Gemma 4's, which is a model of its own too. */
export const spacedKinds: ReadonlySet<string> = new Set(["gemma4", "sarvam-moe"]);
