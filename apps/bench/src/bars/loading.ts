import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "../steps/command.js";
import { quantile } from "../timing.js";
import type { Bar } from "./bar.js";
import { inFolder } from "./life.js";

/** A Llama's shapes: 2.5 GB in bf16 with 18 layers. */
function shapesOf(layers: number): ReadonlyMap<string, readonly number[]> {
  const [vocab, width, inner] = [32768, 2048, 8192];
  const shapes = new Map<string, readonly number[]>([
    ["model.embed_tokens.weight", [vocab, width]],
    ["model.norm.weight", [width]],
  ]);
  for (let layer = 0; layer < layers; layer++) {
    const at = `model.layers.${layer}`;
    for (const norm of ["input_layernorm", "post_attention_layernorm"]) shapes.set(`${at}.${norm}.weight`, [width]);
    for (const name of ["q", "k", "v", "o"]) shapes.set(`${at}.self_attn.${name}_proj.weight`, [width, width]);
    for (const name of ["gate", "up"]) shapes.set(`${at}.mlp.${name}_proj.weight`, [inner, width]);
    shapes.set(`${at}.mlp.down_proj.weight`, [width, inner]);
  }
  return shapes;
}

/** Writes such a checkpoint; returns its bytes. */
function writeCheckpoint(folder: string, layers: number): number {
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, shape] of shapesOf(layers)) {
    const start = end;
    end += 2 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: "BF16", shape, data_offsets: [start, end] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = openSync(join(folder, "model.safetensors"), "w");
  writeSync(file, length);
  writeSync(file, text);
  const part = Buffer.alloc(4 * 2 ** 20);
  for (let i = 0; i < part.length; i += 2) part.writeUInt16LE(0x3c00 + ((i * 31) & 0xff), i);
  for (let left = end; left > 0; left -= part.length) writeSync(file, part, 0, Math.min(part.length, left));
  closeSync(file);
  const sizes = { vocab_size: 32768, hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: layers, num_attention_heads: 16 };
  writeFileSync(
    join(folder, "config.json"),
    JSON.stringify({ model_type: "llama", ...sizes, max_position_embeddings: 512, tie_word_embeddings: true }),
  );
  return end;
}

/** Programs that print the seconds that they took, each in a process of its own. */
const programs = {
  read: (folder: string): string => `
    import { fstatSync, openSync, readSync } from "node:fs";
    const file = openSync(${JSON.stringify(join(folder, "model.safetensors"))});
    const { size } = fstatSync(file);
    const start = performance.now();
    const bytes = new Uint8Array(new WebAssembly.Memory({ initial: Math.ceil(size / 65536) }).buffer);
    for (let done = 0; done < size; ) done += readSync(file, bytes, done, Math.min(2 ** 30, size - done), done);
    console.log(JSON.stringify({ seconds: (performance.now() - start) / 1000 }));`,
  load: (folder: string): string => `
    import { loadModel } from ${JSON.stringify(import.meta.resolve("@lowrank/models"))};
    import { device } from ${JSON.stringify(import.meta.resolve("@lowrank/tensor"))};
    const dev = await device("cpu");
    const start = performance.now();
    await loadModel(${JSON.stringify(folder)}, { device: dev });
    console.log(JSON.stringify({ seconds: (performance.now() - start) / 1000, peakBytes: 1024 * process.resourceUsage().maxRSS }));
    dev.dispose();`,
};

async function timed(program: string): Promise<{ readonly seconds: number; readonly peakBytes?: number }> {
  const { output } = await runCommand(process.execPath, ["--input-type=module", "-e", program]);
  return JSON.parse(output.trim().split("\n").at(-1) ?? "");
}

export const loadingBars: readonly Bar[] = [
  {
    name: "loading a bf16 checkpoint of 2.5 GB in the page cache: time against one thread's fs.read into a new WebAssembly.Memory, memory against its size",
    brief: "load 2.5 GB: fs.read; memory",
    limits: [
      { atMost: 1.5, unit: "x" },
      { atMost: 1.1, unit: "x" },
    ],
    isTimed: true,
    measure: ({ isQuick, say }) =>
      inFolder(async (folder) => {
        const bytes = writeCheckpoint(folder, isQuick ? 3 : 18);
        const [reads, loads, peaks]: [number[], number[], number[]] = [[], [], []];
        // The first of each brings file and programs into the cache.
        for (let round = 0; round <= (isQuick ? 2 : 5); round++) {
          say(`round ${round}: read and load ${(bytes / 1e9).toFixed(1)} GB`);
          const [read, load] = [await timed(programs.read(folder)), await timed(programs.load(folder))];
          if (round === 0) continue;
          reads.push(read.seconds);
          loads.push(load.seconds);
          peaks.push(load.peakBytes ?? Number.POSITIVE_INFINITY);
        }
        const [read, load] = [quantile(reads, 0.5), quantile(loads, 0.5)];
        return {
          values: [load / read, quantile(peaks, 0.5) / bytes],
          detail: `${load.toFixed(2)} s against ${read.toFixed(2)} s, ${(quantile(peaks, 0.5) / 1e9).toFixed(2)} GB resident of ${(bytes / 1e9).toFixed(2)} GB`,
        };
      }),
  },
];
