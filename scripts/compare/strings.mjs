// Texts on which tokenizers go apart: made from a seed, the same on each machine.

/** @param {number} seed */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const words =
  "the of and to in that Hello World don't it's I'M WE'LL naïve café Straße ΟΔΟΣ Привет мир 你好 世界 こんにちは カタカナ 한국어 مرحبا שלום नमस्ते สวัสดี ไทย tiếng Việt İstanbul ﬁne ﬀ ½ ² ① Ⅷ １２３ ٣٤٥ 12345 3.14 1,000 0x1F ＡＢＣ ㌀ ㎏ ℡ ™ … — “ok”".split(
    " ",
  );
const pieces = [
  " ",
  "  ",
  "   ",
  "\t",
  "\n",
  "\n\n",
  "\r\n",
  " \n ",
  "\u00a0",
  "\u2003",
  "\u3000",
  "\u2028",
  "\u0085",
  "\u200b",
  "\u200d",
  "\ufeff",
  "\u00ad",
  "\u001f",
  "\u0000",
  "\u0007",
  "\u007f",
  "\ufffd",
  "▁",
  "Ġ",
  "_",
  "😀",
  "👍🏽",
  "👩‍👩‍👧‍👦",
  "🏳️‍🌈",
  "🇩🇪",
  "❤️",
  "1️⃣",
  "🙂‍↔️",
  "e\u0301",
  "a\u0328\u0301",
  "q\u0323\u0307",
  "ª\u0301",
  "Ａ\u0301",
  "ﬁ\u0302",
  "©\u200d",
  "\u0600ª\u0301",
  "क्षि",
  "ก็",
  "각",
  "\u1100\u1161\u11a8",
  "ﾊﾟ",
  "が",
  "ʼn",
  "'s",
  "'S",
  "'ſ",
  "'T",
  "'re",
  "'Ll",
  "’s",
  "K",
  "ſt",
  "ﬆ",
  "\u{1d400}",
  "\u{20000}",
  "\u{2f800}",
  "\u{10ffff}",
  "\ue000",
  "\u0378",
  "\u{e0041}",
  "{",
  "}",
  "()",
  "[]",
  "->",
  "==",
  "!=",
  "/*",
  "*/",
  "//",
  "#",
  "@",
  "$",
  "%",
  "&&",
  "||",
  ";",
  ":",
  ",",
  ".",
  "...",
  "!?",
  "`",
  "~",
  "^",
  "\\",
  '"',
  "'",
  "<",
  ">",
  "</",
  "<|",
  "|>",
  "<0x41>",
  "<0xE4>",
];
const code = [
  'def f(x):\n    """doc"""\n\treturn x ** 2  # ok\n',
  "for (let i = 0; i < 10; i++) {\r\n  console.log(`#{i}`);\r\n}\r\n",
  "SELECT * FROM t WHERE a='b';",
  "#include <stdio.h>\nint main(void) { return 0; }\n",
  '{"a": [1, 2.5e-3, null], "b": "\\u00e9"}',
  '<div class="x">&nbsp;</div>',
  "https://example.com/a?b=c&d=%20#e",
  "x = y if z else w\n\n\n    pass",
  "\t\t\tint *p = &x;\n",
  "A_B-c.D/e\\f",
  "camelCaseWordsAndHTTPServer2",
  "CONSTANT_VALUE_123",
];

/**
 * @param {number} count
 * @param {readonly string[]} special  texts of the tokenizer's own tokens
 * @param {number} seed
 * @returns {string[]}
 */
export function strings(count, special, seed) {
  const next = random(seed);
  const below = (/** @type {number} */ limit) => Math.floor(next() * limit);
  const one = (/** @type {readonly string[]} */ list) => list[below(list.length)] ?? "";
  /** Code points of a block, assigned or not. */
  const block = () => {
    const from = below(0x110000) & ~0x7f;
    return Array.from({ length: 1 + below(24) }, () => from + below(128))
      .filter((point) => point < 0xd800 || point > 0xdfff)
      .map((point) => String.fromCodePoint(point))
      .join(next() < 0.3 ? " " : "");
  };
  /** The planes that people write in, more often. */
  const low = () => {
    const from = below(0x3000) & ~0x3f;
    return Array.from({ length: 1 + below(16) }, () => String.fromCodePoint(from + below(64))).join(next() < 0.3 ? " " : "");
  };
  const token = () => (special.length === 0 ? "" : one(special));
  const kinds = [
    () => Array.from({ length: 1 + below(12) }, () => one(words)).join(" "),
    () => Array.from({ length: 1 + below(10) }, () => one(pieces)).join(""),
    () => Array.from({ length: 1 + below(10) }, () => (next() < 0.5 ? one(words) : one(pieces))).join(next() < 0.5 ? " " : ""),
    () => one(code) + one(pieces) + one(code),
    block,
    low,
    () => low() + block() + one(words),
    () => `${one(words)}${one(["", " ", "  "])}${token()}${one(["", " ", "\n"])}${one(pieces)}${token()}${one(words)}`,
    () => Array.from({ length: 1 + below(20) }, () => String.fromCodePoint(below(0x250))).join(""),
    () => one([" ", "\n", "\t", "a", "9", "é", "好", "🙂", ".", "\u0301", "\r\n"]).repeat(1 + below(300)),
  ];
  const fixed = [
    "",
    " ",
    "a",
    "a".repeat(100_000),
    " ".repeat(20_000),
    "\u00e9".repeat(30_000),
    "好".repeat(20_000),
    "1".repeat(30_000),
    `${"ab ".repeat(5000)}`,
  ];
  const texts = [...fixed, ...words, ...pieces, ...code];
  while (texts.length < count) texts.push((kinds[texts.length % kinds.length] ?? block)());
  return texts;
}
