/**
 * A byte-level BPE trainer (Sennrich et al. 2016, over bytes as in GPT-2) and the encoder that the corpus is cut with.
 * It writes the `tokenizer.json` that Hugging Face's `tokenizers` (Rust, Python) and `@huggingface/tokenizers` (JavaScript) read.
 * Equal input gives equal output: the most frequent pair is merged first, ties go to the pair that sorts first.
 */

export const END_TOKEN = "<|endoftext|>";

/** GPT-2's pre-tokenizer: what a `ByteLevel` pre-tokenizer with `use_regex` splits by. */
const WORDS = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** GPT-2's printable stand-in for every byte: printable Latin-1 stands for itself, the rest moves to U+0100 and up. */
function byteSymbols() {
  const isPrintable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let moved = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(isPrintable(byte) ? byte : 256 + moved++));
}
const SYMBOL_OF_BYTE = byteSymbols();
const encoder = new TextEncoder();
const symbolsOf = (word) => Array.from(encoder.encode(word), (byte) => SYMBOL_OF_BYTE[byte]);

/**
 * Learns a vocabulary of `vocabSize` tokens from `texts`: the end token, the 256 bytes, then one token a merge.
 * Two digits are never merged, so that a number is read and written digit by digit.
 * @param {Iterable<string>} texts
 * @param {number} vocabSize
 * @returns {{ vocab: Map<string, number>, merges: [string, string][] }}
 */
export function trainBpe(texts, vocabSize) {
  const wordCounts = new Map();
  for (const text of texts) for (const [word] of text.matchAll(WORDS)) wordCounts.set(word, (wordCounts.get(word) ?? 0) + 1);

  const vocab = new Map([END_TOKEN, ...[...SYMBOL_OF_BYTE].sort()].map((token, id) => [token, id]));
  const merges = [];
  const words = [...wordCounts].map(([word, count]) => ({ symbols: symbolsOf(word), count }));

  const pairs = new Map(); // "left right" → { count, words that hold it }
  const countPairs = (word, sign) => {
    for (let i = 0; i + 1 < word.symbols.length; i++) {
      const key = `${word.symbols[i]} ${word.symbols[i + 1]}`;
      let pair = pairs.get(key);
      if (!pair) pairs.set(key, (pair = { count: 0, words: new Set() }));
      pair.count += sign * word.count;
      if (sign > 0) pair.words.add(word);
    }
  };
  for (const word of words) countPairs(word, 1);

  while (vocab.size < vocabSize) {
    let best = "";
    let bestCount = 1;
    for (const [key, { count }] of pairs) {
      if (count < bestCount || (count === bestCount && key >= best)) continue;
      if (/\d.*\d/.test(key)) continue;
      best = key;
      bestCount = count;
    }
    if (best === "") break; // no pair occurs twice: the texts are too small for this vocabulary
    const [left, right] = best.split(" ");
    merges.push([left, right]);
    vocab.set(left + right, vocab.size);
    for (const word of pairs.get(best).words) {
      countPairs(word, -1);
      word.symbols = mergePair(word.symbols, left, right);
      countPairs(word, 1);
    }
    pairs.delete(best);
  }
  return { vocab, merges };
}

function mergePair(symbols, left, right) {
  const merged = [];
  for (let i = 0; i < symbols.length; i++) {
    if (symbols[i] === left && symbols[i + 1] === right) {
      merged.push(left + right);
      i++;
    } else merged.push(symbols[i]);
  }
  return merged;
}

/**
 * The encoder of a trained vocabulary: text in, token ids out.
 * @returns {(text: string) => number[]}
 */
export function bpeEncoder({ vocab, merges }) {
  const rankOf = new Map(merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
  const idsOfWord = new Map();
  const encodeWord = (word) => {
    let symbols = symbolsOf(word);
    for (;;) {
      let best = Number.POSITIVE_INFINITY;
      for (let i = 0; i + 1 < symbols.length; i++) best = Math.min(best, rankOf.get(`${symbols[i]} ${symbols[i + 1]}`) ?? best);
      if (best === Number.POSITIVE_INFINITY) return symbols.map((symbol) => vocab.get(symbol));
      symbols = mergePair(symbols, ...merges[best]);
    }
  };
  return (text) => {
    const ids = [];
    for (const [word] of text.matchAll(WORDS)) {
      let wordIds = idsOfWord.get(word);
      if (!wordIds) idsOfWord.set(word, (wordIds = encodeWord(word)));
      ids.push(...wordIds);
    }
    return ids;
  };
}

/** The two files of a Hugging Face tokenizer, as objects ready for `JSON.stringify`. */
export function tokenizerFiles({ vocab, merges }, maxLength) {
  const endToken = { id: 0, content: END_TOKEN, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    "tokenizer.json": {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: [endToken],
      normalizer: null,
      pre_tokenizer: byteLevel,
      post_processor: null,
      decoder: byteLevel,
      model: {
        type: "BPE",
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: false,
        vocab: Object.fromEntries(vocab),
        merges: merges.map(([left, right]) => `${left} ${right}`),
      },
    },
    "tokenizer_config.json": {
      tokenizer_class: "PreTrainedTokenizerFast",
      bos_token: END_TOKEN,
      eos_token: END_TOKEN,
      pad_token: END_TOKEN,
      model_max_length: maxLength,
      clean_up_tokenization_spaces: false,
    },
  };
}
