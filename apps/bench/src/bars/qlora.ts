import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { modelOutline } from "@lowrank/models";
import { absentGpu, planningDevice } from "@lowrank/tensor";
import { runCommand } from "../steps/command.js";
import { quantile } from "../timing.js";
import type { Bar } from "./bar.js";
import { inFolder } from "./life.js";

/** Llama-3.2-1B's shape. */
const config = {
  model_type: "llama",
  vocab_size: 128256,
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 16,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  max_position_embeddings: 8192,
  tie_word_embeddings: true,
};

/** Bytes that are written at a time. */
const partBytes = 4 * 2 ** 20;

/** Writes a checkpoint of this shape in bf16, 2.5 GB, of numbers within ±0.03. */
function writeCheckpoint(folder: string): void {
  const { device } = planningDevice(absentGpu("none", 1e12));
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, { size, shape }] of modelOutline(config, { device }).namedParameters()) {
    header[name] = { dtype: "BF16", shape, data_offsets: [end, end + 2 * size] };
    end += 2 * size;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = openSync(join(folder, "model.safetensors"), "w");
  writeSync(file, length);
  writeSync(file, text);
  const part = Buffer.alloc(partBytes);
  let state = 7;
  for (let i = 0; i < partBytes; i += 2) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    // A sign, an exponent of four, and a fraction.
    part.writeUInt16LE(((state >>> 31) << 15) | ((118 + ((state >>> 28) & 3)) << 7) | ((state >>> 20) & 127), i);
  }
  for (let left = end; left > 0; left -= partBytes) writeSync(file, part, 0, Math.min(partBytes, left));
  closeSync(file);
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
}

/** A program that makes steps of QLoRA and prints their seconds and the most memory that the process had, within `budget` bytes of the device. */
const program = (folder: string, budget: number | null, steps: number): string => `
  import { optim } from ${JSON.stringify(import.meta.resolve("@lowrank/autograd"))};
  import { applyAdapter } from ${JSON.stringify(import.meta.resolve("@lowrank/lora"))};
  import { collate, loadModel, trainingStep } from ${JSON.stringify(import.meta.resolve("@lowrank/models"))};
  import { device } from ${JSON.stringify(import.meta.resolve("@lowrank/tensor"))};
  const dev = await device("cpu", ${budget === null ? "{}" : `{ budgetBytes: ${budget} }`});
  const { model } = await loadModel(${JSON.stringify(folder)}, { device: dev, quantize: "nf4" });
  const loaded = 1024 * process.resourceUsage().maxRSS;
  const adapter = applyAdapter(model, { method: "lora", rank: 8, alpha: 16, targets: ["q_proj", "v_proj"] });
  const named = adapter.namedParameters();
  const optimizer = optim.adamw(named, { weightDecay: 0 });
  const step = trainingStep({ model, parameters: named, rules: adapter.training, optimizer, maxGradNorm: 1 });
  const ids = Array.from({ length: 512 }, (_, i) => (i * 7919) % 128256);
  const batch = collate([{ line: 0, ids, labels: ids }], { layout: model.batchLayout, lengthLimit: 512 });
  const seconds = [];
  for (let i = 0; i <= ${steps}; i++) {
    const start = performance.now();
    await step.run([batch], 1e-3);
    // The first plans the kernels.
    if (i > 0) seconds.push((performance.now() - start) / 1000);
  }
  console.log(JSON.stringify({ seconds, loaded, device: dev.counters.peakBytes, peak: 1024 * process.resourceUsage().maxRSS }));
  dev.dispose();`;

interface Measured {
  readonly seconds: readonly number[];
  /** Bytes resident at most: when the model was loaded, and at the end; and what the device had. */
  readonly loaded: number;
  readonly device: number;
  readonly peak: number;
}

async function measured(folder: string, budget: number | null, steps: number): Promise<Measured> {
  const { output } = await runCommand(process.execPath, ["--input-type=module", "-e", program(folder, budget, steps)]);
  return JSON.parse(output.trim().split("\n").at(-1) ?? "") as Measured;
}

/** What --memory 1.9 leaves the device of a process: 0.225 GB are Node's, the program's, and what is read at a time (apps/cli/src/session.ts). */
const tight = 1.9e9 - 225e6;

export const qloraBars: readonly Bar[] = [
  {
    name: "a step of QLoRA of Llama-3.2-1B's shape, NF4 with nested scales, q and v, rank 8, 1 x 512: GB resident, the same with --memory 1.9, time of that against the first",
    brief: "QLoRA of 1 B: GB, GB at 1.9, time",
    limits: [
      { atMost: 2.3, unit: "GB" },
      { atMost: 1.9, unit: "GB" },
      { atMost: 1.25, unit: "x" },
    ],
    isTimed: true,
    measure: ({ isQuick, say }) =>
      inFolder(async (folder) => {
        say("writing a checkpoint of 2.5 GB");
        writeCheckpoint(folder);
        const steps = isQuick ? 1 : 3;
        say("steps with all memory");
        const free = await measured(folder, null, steps);
        say("steps within 1.9 GB");
        const small = await measured(folder, tight, steps);
        const [wide, narrow] = [quantile(free.seconds, 0.5), quantile(small.seconds, 0.5)];
        return {
          values: [free.peak / 1e9, small.peak / 1e9, narrow / wide],
          detail: `${wide.toFixed(1)} s and ${narrow.toFixed(1)} s a step; loaded at ${(free.loaded / 1e9).toFixed(2)} GB, the device's own peaks ${(free.device / 1e9).toFixed(2)} and ${(small.device / 1e9).toFixed(2)} GB`,
        };
      }),
  },
];
