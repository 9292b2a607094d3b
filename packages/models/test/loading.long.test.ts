// Slow: reads 300 MB of weights and a vocabulary of a quarter of a million tokens, as real checkpoints have.
import { readFileSync } from "node:fs";
import { device, type FileSystem } from "@lowrank/tensor";
import { expect, test } from "vitest";
import { loadModel } from "../src/checkpoint/load.js";

/** CPU time of this thread in milliseconds, where the system tells it, else of the process: other threads then make a stretch look longer. */
function cpuMs(): number {
  try {
    return Number(readFileSync("/proc/thread-self/schedstat", "utf8").split(" ")[0]) / 1e6;
  } catch {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e3;
  }
}

/** The most CPU time that passes between two turns of the event loop while something runs. A busy machine makes it no longer. */
async function longestStretchMs(work: () => Promise<unknown>): Promise<number> {
  let [longest, last, isOver] = [0, cpuMs(), false];
  const watch = async (): Promise<void> => {
    while (!isOver) {
      await new Promise((resolve) => setImmediate(resolve));
      const now = cpuMs();
      longest = Math.max(longest, now - last);
      last = now;
    }
  };
  const watching = watch();
  await work();
  isOver = true;
  await watching;
  return longest;
}

const sizes = { vocab_size: 65536, hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: 1, num_attention_heads: 8 };
const config = { model_type: "llama", ...sizes, max_position_embeddings: 512, tie_word_embeddings: false };
const { vocab_size: vocab, hidden_size: width, intermediate_size: inner } = sizes;
const layer = "model.layers.0.";
const shapes: Readonly<Record<string, readonly number[]>> = {
  "model.embed_tokens.weight": [vocab, width],
  "lm_head.weight": [vocab, width],
  "model.norm.weight": [width],
  [`${layer}input_layernorm.weight`]: [width],
  [`${layer}post_attention_layernorm.weight`]: [width],
  ...Object.fromEntries(["q", "k", "v", "o"].map((name) => [`${layer}self_attn.${name}_proj.weight`, [width, width]])),
  [`${layer}mlp.gate_proj.weight`]: [inner, width],
  [`${layer}mlp.up_proj.weight`]: [inner, width],
  [`${layer}mlp.down_proj.weight`]: [width, inner],
};

/** A safetensors file of zeros in bf16, whose header alone lies in memory. */
function weights(): { readonly header: Uint8Array; readonly byteLength: number } {
  let at = 0;
  const entries = Object.entries(shapes).map(([name, shape]) => {
    const start = at;
    at += 2 * shape.reduce((product, size) => product * size, 1);
    return [name, { dtype: "BF16", shape, data_offsets: [start, at] }] as const;
  });
  const text = JSON.stringify(Object.fromEntries(entries));
  const json = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  const header = new Uint8Array(8 + json.length);
  new DataView(header.buffer).setBigUint64(0, BigInt(json.length), true);
  header.set(json, 8);
  return { header, byteLength: header.length + at };
}

/** The contents of a tokenizer.json of 262,144 tokens, merged of pairs as BPE's are. */
function tokenizerText(): string {
  const alphabet = Array.from({ length: 256 }, (_, i) => String.fromCharCode(i < 94 ? 33 + i : 161 + i));
  const tokens = [...alphabet];
  const known = new Set(tokens);
  const merges: string[] = [];
  for (let i = 0; tokens.length < 2 ** 18; i++) {
    for (let j = 0; j < 600 && tokens.length < 2 ** 18; j++) {
      const [left = "", right = ""] = [tokens[j], tokens[i]];
      if (known.has(left + right)) continue;
      known.add(left + right);
      tokens.push(left + right);
      merges.push(`${left} ${right}`);
    }
  }
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const model = { type: "BPE", vocab: Object.fromEntries(tokens.map((token, i) => [token, i])), merges };
  return JSON.stringify({ added_tokens: [], normalizer: null, pre_tokenizer: byteLevel, post_processor: null, decoder: byteLevel, model });
}

/** A checkpoint that is all at hand: no read waits for a disk, in which the event loop would have its turn anyway. */
function checkpoint(): FileSystem {
  const { header, byteLength } = weights();
  const texts: Readonly<Record<string, Uint8Array>> = {
    "config.json": new TextEncoder().encode(JSON.stringify(config)),
    "tokenizer.json": new TextEncoder().encode(tokenizerText()),
  };
  return {
    async open(path) {
      const name = path.replace("m/", "");
      const bytes = name === "model.safetensors" ? header : texts[name];
      if (!bytes) return null;
      return {
        name: path,
        byteLength: name === "model.safetensors" ? byteLength : bytes.length,
        async read(offset, length, into) {
          const part = (into ?? new Uint8Array(length)).fill(0);
          part.set(bytes.subarray(offset, offset + length));
          return part;
        },
      };
    },
    list: async () => [...Object.keys(texts), "model.safetensors"],
    write: () => Promise.reject(new Error("This checkpoint is read only.")),
    join: (...parts) => parts.join("/"),
  };
}

test("loading a checkpoint of 300 MB and 262,144 tokens leaves the event loop its turns", async () => {
  const dev = await device("cpu");
  const files = checkpoint();
  const longest = await longestStretchMs(() => loadModel("m", { device: dev, files }));
  expect(dev.counters.bytesInUse).toBeGreaterThan(295e6);
  dev.dispose();
  // What is promised is a second; most of it is the parser's and the tokenizer's, which cannot be interrupted.
  expect(longest).toBeLessThan(1000);
  process.stdout.write(`longest stretch of loading: ${longest.toFixed(0)} ms\n`);
});
