// Small tokenizers of every part that the Rust ones have, for comparisons and tests.

/** @typedef {Record<string, unknown>} Json */

/** GPT-2's signs of bytes. */
const signs = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode((byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae ? byte : next++),
  );
})();
const numbered = (/** @type {readonly string[]} */ tokens) => Object.fromEntries([...new Set(tokens)].map((token, id) => [token, id]));
const byteTokens = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
const letters = [
  ..."abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,'\"!?-_/()[]{}<>|:;=+*&%$#@~`^\\▁éüß好世界かなカ한你이мир٣٤Ａ１½²ªﬁ😀\u0301\u0308",
];

/** Merges of letters into these words, first to last. @param {readonly string[]} words */
function mergesOf(words) {
  /** @type {Array<[string, string]>} */
  const merges = [];
  for (const word of words) {
    const parts = [...word];
    for (let i = 1; i < parts.length; i++) {
      const merge = /** @type {[string, string]} */ ([parts.slice(0, i).join(""), parts[i] ?? ""]);
      if (!merges.some(([a, b]) => a === merge[0] && b === merge[1])) merges.push(merge);
    }
  }
  return merges;
}
const joined = (/** @type {ReadonlyArray<readonly [string, string]>} */ merges) => merges.map(([a, b]) => a + b);

const byteMerges = mergesOf(["Ġthe", "Ġof", "Ġand", "World", "don", "Hello", "ĠĠ", "in", "Ã©", "äł", "ĊĊ", "aaaa", "123"]);
const letterMerges = mergesOf(["the", "▁the", "▁of", "and", "World", "▁▁", "in", "aaaa", "12", "世界", "é", "▁H"]);
const spaceMerges = mergesOf(["a▁b", "the▁", "▁a"]);

/** A vocabulary of bytes with some merges. @type {Json} */
const bytes = {
  type: "BPE",
  dropout: null,
  unk_token: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
  fuse_unk: false,
  byte_fallback: false,
  ignore_merges: false,
  vocab: numbered([...signs, ...joined(byteMerges)]),
  merges: byteMerges,
};
/** A vocabulary of letters. @type {Json} */
const spelled = {
  ...bytes,
  unk_token: "<unk>",
  fuse_unk: true,
  vocab: numbered(["<unk>", "<s>", "</s>", ...letters, ...joined(letterMerges)]),
  merges: letterMerges,
};
/** @type {Json} */
const fallingBack = {
  ...spelled,
  byte_fallback: true,
  vocab: numbered(["<unk>", "<s>", "</s>", ...byteTokens, ...letters, ...joined(letterMerges), ...joined(spaceMerges)]),
};
/** @type {Json} */
const unigram = {
  type: "Unigram",
  unk_id: 0,
  byte_fallback: false,
  vocab: [
    ...new Set([
      "<unk>",
      "<s>",
      "</s>",
      ...letters,
      "▁the",
      "the",
      "▁of",
      "▁and",
      "and",
      "in",
      "▁",
      "▁▁",
      "ing",
      "World",
      "▁World",
      "aa",
      "aaaa",
      "世界",
      "12",
      "123",
      "▁1",
      "ﬁn",
      "é",
      "▁H",
      "Hello",
    ]),
  ].map((token, id) => [token, id < 3 ? 0 : -1 - ((id * 7919) % 97) / 10]),
};
const pieces = numbered([
  "[UNK]",
  "[CLS]",
  "[SEP]",
  "[PAD]",
  ...letters,
  ...letters.map((letter) => `##${letter}`),
  "the",
  "##ing",
  "hello",
  "world",
  "##ld",
  "and",
  "don",
  "##on",
  "12",
  "##34",
]);
/** @type {Json} */
const wordPiece = { type: "WordPiece", unk_token: "[UNK]", continuing_subword_prefix: "##", max_input_chars_per_word: 100, vocab: pieces };

/** @param {Json} parts @returns {Json} */
const tokenizer = (parts) => ({
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  ...parts,
});
/** @param {number} id @param {string} content @param {Json} [flags] */
const added = (id, content, flags = {}) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
  ...flags,
});
const byteLevel = (/** @type {Json} */ options = {}) => ({
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: true,
  ...options,
});
const sequence = (/** @type {string} */ key, /** @type {readonly Json[]} */ ...parts) => ({ type: "Sequence", [key]: parts });
const split = (/** @type {string} */ expression, behavior = "Isolated", invert = false) => ({
  type: "Split",
  pattern: { Regex: expression },
  behavior,
  invert,
});

/** A compiled map of texts as SentencePiece has it; each node of its tree has a block of units of its own. @param {Readonly<Record<string, string>>} mapping */
export function charsmap(mapping) {
  /** @typedef {{ children: Map<number, Node>, value: number | null, base: number }} Node */
  let blocks = 1;
  /** @returns {Node} */
  const node = () => ({ children: new Map(), value: null, base: 256 * blocks++ });
  const tree = node();
  const encoder = new TextEncoder();
  /** @type {number[]} */
  const texts = [];
  for (const [from, to] of Object.entries(mapping)) {
    let at = tree;
    for (const byte of encoder.encode(from)) {
      const child = at.children.get(byte) ?? node();
      at.children.set(byte, child);
      at = child;
    }
    at.value = texts.length;
    texts.push(...encoder.encode(to), 0);
  }
  const units = new Uint32Array(256 * blocks);
  units[0] = tree.base << 10;
  const fill = (/** @type {Node} */ at) => {
    if (at.value !== null) units[at.base] = 0x80000000 + at.value;
    for (const [byte, child] of at.children) {
      const place = at.base ^ byte;
      const distance = place ^ child.base;
      units[place] = byte | (child.value === null ? 0 : 0x100) | (distance < 2 ** 21 ? distance << 10 : ((distance >>> 8) << 10) | 0x200);
      fill(child);
    }
  };
  fill(tree);
  return Buffer.concat([Buffer.from(Uint32Array.of(units.byteLength).buffer), Buffer.from(units.buffer), Buffer.from(texts)]).toString(
    "base64",
  );
}
const compiled = charsmap({
  ª: "a",
  "²": "2",
  "½": "1⁄2",
  ﬁ: "fi",
  Ａ: "A",
  "１": "1",
  "　": " ",
  "\u00a0": " ",
  "\t": " ",
  "\n": " ",
  "\u0007": "",
  "\u200b": " ",
  "…": "...",
  "㎏": "kg",
  "e\u0301": "é",
  が: "が",
  ß: "ss",
  "\r\n": " ",
});

/** Added tokens of all kinds; new ones come after the vocabulary, one after another, as Rust numbers them. @param {Json} model */
function flags(model) {
  const vocab = /** @type {Record<string, number>} */ (model["vocab"]);
  let next = Object.keys(vocab).length;
  /** @type {ReadonlyArray<readonly [string, Json]>} */
  const kinds = [
    ["cat", { single_word: true }],
    ["<mask>", { lstrip: true }],
    ["<sep>", { rstrip: true }],
    ["<both>", { lstrip: true, rstrip: true }],
    ["the", { normalized: true, special: false }],
    ["ÉCOLE", { normalized: true, special: false }],
    ["é", { single_word: true, normalized: true, special: false }],
    ["<mask><sep>", {}],
    ["  ", { special: false }],
    ["don't", { single_word: true, lstrip: true, normalized: true }],
  ];
  return kinds.map(([content, more]) => added(vocab[content] ?? next++, content, more));
}

/** Normalizers, each before bytes, which show what stands where. @type {Readonly<Record<string, Json>>} */
const normalizers = {
  NFC: { type: "NFC" },
  NFD: { type: "NFD" },
  NFKC: { type: "NFKC" },
  NFKD: { type: "NFKD" },
  Lowercase: { type: "Lowercase" },
  Nmt: { type: "Nmt" },
  Strip: { type: "Strip", strip_left: true, strip_right: true },
  StripRight: { type: "Strip", strip_left: false, strip_right: true },
  StripAccents: sequence("normalizers", { type: "NFD" }, { type: "StripAccents" }),
  Bert: { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: true },
  BertCased: { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, strip_accents: true, lowercase: false },
  Replace: sequence(
    "normalizers",
    { type: "Replace", pattern: { String: "a" }, content: "xyz" },
    { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
    { type: "Replace", pattern: { Regex: "[\\n\\r]+|e\\p{M}*" }, content: "" },
  ),
  Prepend: sequence("normalizers", { type: "Prepend", prepend: "▁😀" }, { type: "Replace", pattern: { String: " " }, content: "▁" }),
  Precompiled: sequence(
    "normalizers",
    { type: "Precompiled", precompiled_charsmap: compiled },
    { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
  ),
  Chain: sequence(
    "normalizers",
    { type: "NFKC" },
    { type: "Lowercase" },
    { type: "Strip", strip_left: true, strip_right: false },
    { type: "NFD" },
    { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
  ),
  ByteLevel: { type: "ByteLevel" },
};

/** Pre-tokenizers before a vocabulary of letters or of bytes. @type {Readonly<Record<string, Json>>} */
const preTokenizers = {
  Whitespace: { type: "Whitespace" },
  WhitespaceSplit: { type: "WhitespaceSplit" },
  Bert: { type: "BertPreTokenizer" },
  ...Object.fromEntries(
    ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"].flatMap((behavior) => [
      [`Punctuation${behavior}`, { type: "Punctuation", behavior }],
      [`Split${behavior}`, split("\\p{N}|[aeiou]", behavior)],
      [`SplitOther${behavior}`, split("\\w+", behavior, true)],
    ]),
  ),
  Digits: { type: "Digits", individual_digits: false },
  DigitsEach: { type: "Digits", individual_digits: true },
  Delimiter: { type: "CharDelimiterSplit", delimiter: "a" },
  FixedLength: { type: "FixedLength", length: 3 },
  MetaspaceFirst: { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: true },
  MetaspaceNever: { type: "Metaspace", replacement: "▁", prepend_scheme: "never", split: true },
  MetaspaceWhole: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: false },
  DigitsBefore: sequence("pretokenizers", { type: "Digits", individual_digits: true }, byteLevel()),
  DigitsAfter: sequence("pretokenizers", byteLevel(), { type: "Digits", individual_digits: true }),
  PunctuationAfter: sequence("pretokenizers", byteLevel({ add_prefix_space: true }), { type: "Punctuation", behavior: "Isolated" }),
  Gpt4: sequence(
    "pretokenizers",
    split("'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"),
    byteLevel({ use_regex: false }),
  ),
  Lines: sequence("pretokenizers", split("^\\s*\\S|$|(?<=[a-z])(?=[A-Z])|(?>ab?)c"), byteLevel({ use_regex: false })),
  Classes: sequence(
    "pretokenizers",
    split("[\\p{Han}\\p{Hiragana}\\p{Katakana}ー]+|[^\\W\\d_]+|\\d{1,3}(?=(?:\\d{3})*\\b)|[[:space:]]+|[\\p{P}&&[^.]]+|\\p{^L}"),
    byteLevel({ use_regex: false }),
  ),
};

const inBytes = (/** @type {Json} */ parts) =>
  tokenizer({ model: bytes, pre_tokenizer: byteLevel({ use_regex: false }), decoder: byteLevel(), ...parts });
const entries = (
  /** @type {Readonly<Record<string, Json>>} */ table,
  /** @type {string} */ name,
  /** @type {(part: Json) => Json} */ make,
) => Object.fromEntries(Object.entries(table).map(([key, part]) => [`${name} ${key}`, make(part)]));

/** Tokenizers by name. @type {Readonly<Record<string, Json>>} */
export const made = {
  ...entries(normalizers, "normalizer", (normalizer) => inBytes({ normalizer })),
  ...entries(preTokenizers, "pre-tokenizer", (part) =>
    tokenizer({
      model: JSON.stringify(part).includes("ByteLevel") ? bytes : fallingBack,
      pre_tokenizer: part,
      decoder: sequence("decoders", { type: "ByteFallback" }, { type: "Fuse" }),
    }),
  ),
  bert: tokenizer({
    added_tokens: [added(0, "[UNK]"), added(1, "[CLS]"), added(2, "[SEP]"), added(3, "[PAD]")],
    normalizer: normalizers["Bert"],
    pre_tokenizer: { type: "BertPreTokenizer" },
    model: wordPiece,
    post_processor: { type: "BertProcessing", sep: ["[SEP]", 2], cls: ["[CLS]", 1] },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
  }),
  roberta: tokenizer({
    model: bytes,
    pre_tokenizer: byteLevel({ add_prefix_space: true }),
    post_processor: { type: "RobertaProcessing", sep: ["a", 64], cls: ["b", 65], trim_offsets: true, add_prefix_space: true },
    decoder: byteLevel(),
  }),
  trimmed: tokenizer({
    model: bytes,
    added_tokens: flags(bytes),
    pre_tokenizer: byteLevel(),
    post_processor: sequence("processors", byteLevel({ add_prefix_space: false }), {
      type: "TemplateProcessing",
      single: [
        { SpecialToken: { id: "<mask>", type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: "end", type_id: 0 } },
      ],
      pair: [],
      special_tokens: { "<mask>": { id: "<mask>", ids: [301], tokens: ["<mask>"] }, end: { id: "end", ids: [64, 65], tokens: ["a", "b"] } },
    }),
    decoder: byteLevel(),
  }),
  "added tokens": inBytes({ added_tokens: flags(bytes) }),
  "added tokens, lower case": inBytes({
    added_tokens: flags(bytes),
    normalizer: sequence("normalizers", { type: "Lowercase" }, { type: "NFD" }),
  }),
  "added tokens, prepended": tokenizer({
    added_tokens: flags(fallingBack),
    model: fallingBack,
    normalizer: normalizers["Prepend"],
    decoder: sequence(
      "decoders",
      { type: "Replace", pattern: { String: "▁" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ),
  }),
  unigram: tokenizer({
    model: unigram,
    added_tokens: [added(1, "<s>"), added(2, "</s>")],
    normalizer: normalizers["Precompiled"],
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
    post_processor: {
      type: "TemplateProcessing",
      single: [{ Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "</s>", type_id: 0 } }],
      pair: [],
      special_tokens: { "</s>": { id: "</s>", ids: [2], tokens: ["</s>"] } },
    },
    decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
  }),
  "unigram, bytes": tokenizer({
    model: {
      ...unigram,
      byte_fallback: true,
      vocab: [.../** @type {unknown[]} */ (unigram["vocab"]), ...byteTokens.map((token) => [token, 0])],
    },
    normalizer: sequence("normalizers", { type: "Nmt" }, { type: "NFKC" }, { type: "Replace", pattern: { Regex: " {2,}" }, content: " " }),
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: false },
    decoder: sequence("decoders", { type: "ByteFallback" }, { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true }),
  }),
  "unigram without the unknown": tokenizer({
    model: { ...unigram, unk_id: null },
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
  }),
  "BPE, no fused unknown": tokenizer({
    model: { ...spelled, fuse_unk: false },
    pre_tokenizer: { type: "WhitespaceSplit" },
    decoder: { type: "BPEDecoder", suffix: "e" },
  }),
  "BPE, fused unknown": tokenizer({ model: spelled, normalizer: normalizers["Prepend"] }),
  "BPE without the unknown": tokenizer({ model: { ...spelled, unk_token: null } }),
  "BPE, merges over spaces": tokenizer({
    model: { ...fallingBack, merges: [...letterMerges, ...spaceMerges] },
    normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
  }),
  "BPE, whole words first": tokenizer({ model: { ...bytes, ignore_merges: true }, pre_tokenizer: byteLevel(), decoder: byteLevel() }),
  "BPE with prefix and suffix": tokenizer({
    model: {
      ...spelled,
      continuing_subword_prefix: "##",
      end_of_word_suffix: "</w>",
      vocab: numbered([
        "<unk>",
        ...letters.flatMap((letter) => [letter, `##${letter}`, `${letter}</w>`, `##${letter}</w>`]),
        "th",
        "the</w>",
        "##nd</w>",
        "and</w>",
      ]),
      merges: [
        ["t", "##h"],
        ["th", "##e</w>"],
        ["##n", "##d</w>"],
        ["a", "##nd</w>"],
      ],
    },
    pre_tokenizer: { type: "Whitespace" },
    decoder: { type: "BPEDecoder", suffix: "</w>" },
  }),
  words: tokenizer({
    model: { type: "WordLevel", unk_token: "[UNK]", vocab: pieces },
    normalizer: { type: "Lowercase" },
    pre_tokenizer: { type: "Whitespace" },
    decoder: { type: "CTC", pad_token: "[PAD]", word_delimiter_token: "|", cleanup: true },
  }),
};
