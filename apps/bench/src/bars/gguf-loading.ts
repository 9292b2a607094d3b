import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { type GgufTensorToWrite, type GgufValueToWrite, writeGguf } from "@lowrank/tensor";
import { runCommand } from "../steps/command.js";
import { quantile } from "../timing.js";
import type { Bar } from "./bar.js";
import { inFolder } from "./life.js";

/** A Llama whose matrices have 1.03 GB in Q8_0 with 20 layers. */
const [vocabulary, width, inner, heads, keyHeads] = [32000, 2048, 5632, 32, 8] as const;

/** Bytes that are written at a time: whole blocks. */
const partBytes = 34 * 2 ** 17;

/** Blocks of Q8_0, all alike: a scale of 2^-12 and small numbers. */
function* blocks(count: number): Generator<Uint8Array> {
  const part = Uint8Array.from({ length: partBytes }, (_, i) => (i % 34 === 0 ? 0 : i % 34 === 1 ? 0x0c : (i * 37) & 255));
  for (let left = count; left > 0; left -= partBytes) yield part.subarray(0, Math.min(partBytes, left));
}

function tensorsOf(layers: number): GgufTensorToWrite[] {
  const matrix = (name: string, rows: number, columns: number): GgufTensorToWrite => {
    const shape = [rows, columns];
    return { name: `${name}.weight`, type: "Q8_0", shape, chunks: () => blocks(((rows * columns) / 32) * 34) };
  };
  const norm = (name: string): GgufTensorToWrite => ({
    name: `${name}.weight`,
    type: "F32",
    shape: [width],
    chunks: () => [new Uint8Array(new Float32Array(width).fill(1).buffer)],
  });
  const ofLayer = (at: string): GgufTensorToWrite[] => [
    norm(`${at}.attn_norm`),
    matrix(`${at}.attn_q`, width, width),
    matrix(`${at}.attn_k`, (width / heads) * keyHeads, width),
    matrix(`${at}.attn_v`, (width / heads) * keyHeads, width),
    matrix(`${at}.attn_output`, width, width),
    norm(`${at}.ffn_norm`),
    matrix(`${at}.ffn_gate`, inner, width),
    matrix(`${at}.ffn_up`, inner, width),
    matrix(`${at}.ffn_down`, width, inner),
  ];
  const all = Array.from({ length: layers }, (_, layer) => ofLayer(`blk.${layer}`));
  return [matrix("token_embd", vocabulary, width), norm("output_norm"), ...all.flat()];
}

/** Writes such a file; returns its bytes. */
async function writeFile(path: string, layers: number): Promise<number> {
  const count = (value: number): GgufValueToWrite => ({ type: "u32", value });
  const metadata = new Map<string, GgufValueToWrite>([
    ["general.architecture", { type: "string", value: "llama" }],
    ["llama.block_count", count(layers)],
    ["llama.context_length", count(2048)],
    ["llama.embedding_length", count(width)],
    ["llama.feed_forward_length", count(inner)],
    ["llama.attention.head_count", count(heads)],
    ["llama.attention.head_count_kv", count(keyHeads)],
    ["llama.attention.layer_norm_rms_epsilon", { type: "f32", value: 1e-5 }],
    ["llama.rope.freq_base", { type: "f32", value: 10000 }],
    ["llama.vocab_size", count(vocabulary)],
  ]);
  const file = createWriteStream(path);
  await pipeline(writeGguf(path, { metadata, tensors: tensorsOf(layers) }), file);
  return file.bytesWritten;
}

/** Loads a file and generates one token; prints the seconds until both. */
const program = (path: string): string => `
  import { loadModel, TextGenerator } from ${JSON.stringify(import.meta.resolve("@lowrank/models"))};
  import { device } from ${JSON.stringify(import.meta.resolve("@lowrank/tensor"))};
  const start = performance.now();
  const dev = await device("cpu");
  const { model } = await loadModel(${JSON.stringify(path)}, { device: dev });
  const loaded = performance.now();
  const generator = new TextGenerator(model);
  await generator.generate([[1, 2, 3, 4]], { maxNewTokens: 1, stopTokens: [] });
  console.log(JSON.stringify({ loaded: (loaded - start) / 1000, seconds: (performance.now() - start) / 1000 }));
  generator.dispose();
  dev.dispose();`;

export const ggufLoadingBars: readonly Bar[] = [
  {
    name: "loading a GGUF file of 1 GB, in the page cache, to the first token: s",
    brief: "load GGUF of 1 GB, first token",
    limits: [{ atMost: 3, unit: "s" }],
    isTimed: true,
    measure: ({ isQuick, say }) =>
      inFolder(async (folder) => {
        const path = join(folder, "model.gguf");
        const bytes = await writeFile(path, isQuick ? 3 : 20);
        const times: { loaded: number; seconds: number }[] = [];
        // The first brings file and programs into the cache.
        for (let round = 0; round <= (isQuick ? 1 : 5); round++) {
          say(`round ${round}: load ${(bytes / 1e9).toFixed(2)} GB`);
          const { output } = await runCommand(process.execPath, ["--input-type=module", "-e", program(path)]);
          if (round > 0) times.push(JSON.parse(output.trim().split("\n").at(-1) ?? ""));
        }
        const median = (which: "loaded" | "seconds"): number =>
          quantile(
            times.map((time) => time[which]),
            0.5,
          );
        return {
          values: [median("seconds")],
          detail: `${(bytes / 1e9).toFixed(2)} GB in Q8_0, loaded after ${median("loaded").toFixed(2)} s`,
        };
      }),
  },
];
