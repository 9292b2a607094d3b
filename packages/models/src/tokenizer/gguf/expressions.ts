/** Expressions that tokenizers split texts by, as their tokenizer.json has them (Oniguruma's syntax). */

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const spaces = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const signs = String.raw` ?[^\s\p{L}\p{N}]+`;

/** OpenAI's cl100k_base with so many digits in a row (`{1,3}`, or one). */
const cl100k = (digits: string): string => `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}${digits}|${signs}[\\r\\n]*|${spaces}`;

/** Llama 3, and cl100k_base itself. */
export const llama3: string = cl100k("{1,3}");
/** Qwen 2: each digit apart. */
export const qwen2: string = cl100k("");
/** MiniCPM 5, behind a split by digits. */
export const minicpm5: string = cl100k("+");
/** Qwen 3.5: marks belong to the letters before them. */
export const qwen35: string = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${spaces}`;
/** Qwen 2's without the contractions of English. */
export const ufakzeka: string = qwen2.slice(contractions.length + 1);

const [upper, lower] = [String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`];
/** OpenAI's o200k_base: words of capitals and of small letters. */
const o200k = (digits: string, suffix: string, trailing: string, [capital, small] = [upper, lower]): string =>
  `[^\\r\\n\\p{L}\\p{N}]?${capital}*${small}+${suffix}|[^\\r\\n\\p{L}\\p{N}]?${capital}+${small}*${suffix}|\\p{N}${digits}|${signs}${trailing}*|${spaces}`;

/** GPT-4o, gpt-oss, Llama 4. */
export const gpt4o: string = o200k("{1,3}", `${contractions}?`, "[\\r\\n/]");
/** Mistral's tekken: each digit apart, no contractions. */
export const tekken: string = o200k("", "", "[\\r\\n/]");
export const youtu: readonly string[] = [
  "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
  o200k("", `${contractions}?`, "[\\r\\n/]"),
];
/** Kimi K2: Han apart, and no part of other words. */
export const kimi: string = `[\\p{Han}]+|${o200k("{1,3}", `${contractions}?`, "[\\r\\n]", [
  String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]`,
  String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]`,
])}`;
/** Cohere's tiny aya: numbers in thousands from their end, before all else. */
export const thousands: string = String.raw`\d{1,3}(?=(?:\d{3})*\b)`;

const asian = "[一-龥぀-ゟ゠-ヿ]+";
const words = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+";
/** DeepSeek V3, one after another. */
export const deepseekV3: readonly string[] = [String.raw`\p{N}{1,3}`, asian, `${words}[\\r\\n]*|${spaces}`];
export const spark: readonly string[] = [String.raw`\p{N}{1,3}`, asian, `${words}|${String.raw`[\r\n]|\s+(?!\S)|\s+`}`, String.raw`\p{N}`];

const ideographs = "[一-龥ࠀ-一가-퟿]+";
/** DeepSeek LLM, before its digits: letters of scripts with two cases, signs, what spaces end a text, ideographs. */
export const deepseekLlm: readonly string[] = [
  "[\\r\\n]",
  "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+",
  "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
  "\\s+$",
  ideographs,
];
/** DeepSeek Coder, before its digits. */
export const deepseekCoder: readonly string[] = ["[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", ideographs];

/** BLOOM. */
export const bloom: string = String.raw` ?[^(\s|.,!?…。，、।۔،)]+`;
/** Ling: possessive where the others are greedy. */
export const bailing: string = String.raw`'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`;
export const seedCoder: string = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|${spaces}`;
/** OLMo 2 SuperBPE: numbers in thousands from their end. */
export const superbpe: readonly string[] = [String.raw`\p{N}+`, String.raw`(?=(\d{3})+(?!\d))`];
/** Files of before there were names: llama.cpp's own. */
export const unnamed: readonly string[] = [
  String.raw`[\p{P}\$\+<=>\^~\|]+`,
  String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`,
  String.raw`\p{N}+`,
  "[0-9][0-9][0-9]",
];
