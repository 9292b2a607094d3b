import { dataFlags } from "../data/flags.js";
import type { Flags } from "../flags.js";
import { revisionFlag } from "../hub.js";
import { methodFlags, methodNames } from "../method.js";
import type { WithNeeded } from "../resume.js";
import { deviceFlag, jsonFlag, memoryFlag, modelFlag, quantizeFlag } from "../session.js";

/** The flags of `lowrank train`. */
export const trainFlags = {
  model: { ...modelFlag, required: false },
  revision: revisionFlag,
  quantize: quantizeFlag,
  data: { ...dataFlags.data, required: false },
  "eval-data": { type: "texts", value: "FILE", path: "read", help: "held-out rows: the loss before and after" },
  "eval-split": {
    type: "number",
    above: 0,
    below: 1,
    help: "hold this share of --data out instead, chosen by --seed; equal rows stay together",
  },
  map: dataFlags.map,
  format: dataFlags.format,
  "train-on": dataFlags["train-on"],
  method: { type: "choice", choices: methodNames, help: "what is trained", default: "lora" },
  ...methodFlags,
  steps: { type: "integer", min: 1, help: "optimizer steps" },
  epochs: { type: "number", above: 0, help: "passes over the data, instead of --steps (default: by rows and model, 1 to 12)" },
  "batch-size": { type: "integer", min: 1, help: "rows a batch", default: 8 },
  accumulate: { type: "integer", min: 1, help: "batches a step", default: 1 },
  "max-length": dataFlags["max-length"],
  "long-texts": dataFlags["long-texts"],
  lr: { type: "number", above: 0, help: "peak learning rate (default: by method and width of the model)" },
  schedule: { type: "choice", choices: ["cosine", "linear", "constant"], help: "how the learning rate falls", default: "cosine" },
  warmup: { type: "integer", min: 0, help: "steps of linear rise (default: a twentieth of the steps, at most 20)" },
  "weight-decay": { type: "number", min: 0, help: "AdamW's decoupled decay", default: 0 },
  "max-grad-norm": { type: "number", min: 0, help: "clip gradients to this norm; 0 never clips", default: 1 },
  seed: { type: "integer", min: 0, help: "order of rows, initialization, dropout", default: 0 },
  device: deviceFlag,
  memory: memoryFlag,
  out: {
    type: "text",
    value: "DIR",
    path: "written",
    help: "the run's folder: adapter (or checkpoint), metrics.jsonl, state",
    required: true,
  },
  resume: { type: "switch", help: "resume the run in --out; its flags need not be given again" },
  "allow-changed": { type: "switch", help: "with --resume: continue although flags, weights, rows or the tokenizer changed" },
  overwrite: { type: "switch", help: "replace the run in --out" },
  "as-plain-lora": { type: "switch", help: "write an adapter that began as pissa or olora as plain LoRA of twice the rank" },
  dtype: {
    type: "choice",
    choices: ["as-stored", "f32", "bf16", "f16"],
    help: "with --method full: how the checkpoint's weights are stored; the state keeps them in f32",
    default: "as-stored",
  },
  "eval-every": { type: "integer", min: 0, help: "steps between evaluations; 0: before and after only", default: 0 },
  "eval-rows": { type: "integer", min: 1, help: "held-out rows used, evenly spread over the file", default: 500 },
  "save-every": { type: "integer", min: 0, help: "steps between checkpoints; 0: at the end only", default: 100 },
  "log-every": { type: "integer", min: 1, help: "steps between lines of metrics.jsonl", default: 1 },
  profile: {
    type: "text",
    value: "FILE.json",
    path: "written",
    help: "write when each kernel ran, in Chrome's trace format (opens in Perfetto); slows the run",
  },
  json: jsonFlag,
} as const satisfies Flags;

/** Their values; a resumed run has those that it was started with. */
export type TrainValues = WithNeeded<typeof trainFlags, "model" | "data">;
