// What the tortured runs train: a random GPT-2 of two layers with a token a byte, and rows of word pairs exchanged.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { initModel, saveModel } from "@lowrank/models";
import { device } from "@lowrank/tensor";

const words = ["red", "green", "blue", "small", "large", "old", "new", "box", "lamp", "book", "chair"];

/** Bytes as GPT-2 spells them, without merges. */
function byteTokenizer() {
  const isPrintable = (/** @type {number} */ byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let spare = 256;
  const vocab = Object.fromEntries(
    Array.from({ length: 256 }, (_, byte) => [String.fromCodePoint(isPrintable(byte) ? byte : spare++), byte]),
  );
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const end = { id: 256, content: "</s>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: "1.0",
    added_tokens: [end],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: "BPE", unk_token: null, vocab, merges: [] },
  };
}

/**
 * @param {string} folder
 * @returns {Promise<{ model: string, train: string, heldOut: string }>}
 */
export async function tinyProject(folder) {
  const model = join(folder, "model");
  const dev = await device("cpu", { threads: 1 });
  const config = { model_type: "gpt2", vocab_size: 257, n_embd: 32, n_layer: 2, n_head: 4, n_positions: 64, eos_token_id: 256 };
  await saveModel(await initModel(config, { device: dev, seed: 3 }), model);
  dev.dispose();
  mkdirSync(model, { recursive: true });
  writeFileSync(join(model, "tokenizer.json"), JSON.stringify(byteTokenizer()));
  writeFileSync(join(model, "tokenizer_config.json"), JSON.stringify({ tokenizer_class: "PreTrainedTokenizerFast", eos_token: "</s>" }));
  const lines = words.flatMap((a) => words.map((b) => JSON.stringify({ prompt: `${a} ${b}:`, completion: ` ${b} ${a}` })));
  const [train, heldOut] = [join(folder, "train.jsonl"), join(folder, "held-out.jsonl")];
  writeFileSync(train, `${lines.filter((_, i) => i % 5 !== 0).join("\n")}\n`);
  writeFileSync(heldOut, `${lines.filter((_, i) => i % 5 === 0).join("\n")}\n`);
  return { model, train, heldOut };
}
