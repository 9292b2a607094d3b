/** Tokens that llama.cpp looks up in each file whose name has "phi-3" or "phi3" in it; it does not load one that lacks them (llama-vocab.cpp). */
const phi3Tokens = ["</s>", "<unk>", "<s>", "<|endoftext|>"];

/** A name under which llama.cpp loads a file with these tokens, if it has any. */
export function loadableName(name: string, tokens: unknown): string {
  const isPhi3 = !Array.isArray(tokens) || phi3Tokens.every((token) => (tokens as readonly unknown[]).includes(token));
  return isPhi3 ? name : name.replace(/(phi)-?(3)/gi, "$1 $2");
}
