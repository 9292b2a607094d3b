type Json = Readonly<Record<string, unknown>>;

/** What SentencePiece writes for a space. */
const space = "▁";

/**
 * The contents of a tokenizer.json whose tokenizer takes a text word by word where it took it whole, with the same result and several times
 * as fast: tokenizers that SentencePiece made (Llama's) have no pre-tokenizer, so that a whole text counts as one word, which is merged
 * anew each time. Where no merge joins anything to a space after it, merging ends at each space, and words can be told apart, and remembered.
 */
export function wordByWord(json: Json): Json {
  const model = json["model"] as Json | null | undefined;
  if (json["pre_tokenizer"] || model?.["type"] !== "BPE") return json;
  const whole = ["ignore_merges", "dropout", "end_of_word_suffix", "continuing_subword_prefix", "continuing_subword_suffix"];
  if (whole.some((option) => model[option])) return json;
  const merges = model["merges"] as readonly (string | readonly [string, string])[];
  const goesOn = new RegExp(`[^${space}]${space}`);
  const joined = (merge: (typeof merges)[number]): string => (typeof merge === "string" ? merge.replace(" ", "") : merge.join(""));
  if (merges.some((merge) => goesOn.test(joined(merge)))) return json;
  const pattern = { Regex: `${space}+[^${space}]*|[^${space}]+` };
  return { ...json, pre_tokenizer: { type: "Split", pattern, behavior: "Isolated", invert: true } };
}

/** Words that are remembered, and how long they may be. */
const wordLimit = 65536;
const lengthLimit = 256;

/** The part of a tokenizer that merges a word's characters into tokens. */
interface Merging {
  bpe(word: string): readonly string[];
}

export function merges(model: object | null): model is Merging {
  return model !== null && "bpe" in model;
}

/** Lets a model remember what it makes of words. Its own memory notes each use, which takes longer than most of the rest. */
export function rememberWords(model: Merging): void {
  const split = model.bpe.bind(model);
  const known = new Map<string, readonly string[]>();
  model.bpe = (word) => {
    const before = known.get(word);
    if (before) return before;
    const tokens = split(word);
    if (known.size === wordLimit) known.clear();
    if (word.length < lengthLimit) known.set(word, tokens);
    return tokens;
  };
}
