import { dataFlags } from "../data/flags.js";
import type { Flags } from "../flags.js";
import { revisionFlag } from "../hub.js";
import { methodFlags, methodNames } from "../method.js";
import { deviceFlag, jsonFlag, modelFlag, quantizeFlag } from "../session.js";

/** Flags of the commands that train several runs on the same rows into one folder. */
export const comparedFlags = {
  ...dataFlags,
  "eval-data": {
    type: "texts",
    value: "FILE",
    path: "read",
    help: "held-out rows (default: every tenth row of --data, which is then not trained on)",
  },
  "batch-size": { type: "integer", min: 1, help: "rows a step", default: 8 },
  warmup: { type: "integer", min: 0, help: "steps of linear rise, before the rate falls as a cosine", default: 0 },
  "eval-rows": { type: "integer", min: 1, help: "held-out rows used, evenly spread over the file", default: 200 },
  "save-every": { type: "integer", min: 0, help: "steps between checkpoints", default: 50 },
  out: {
    type: "text",
    value: "DIR",
    path: "written",
    help: "folder of the results, the page and the adapters; run again to go on after an interruption",
    required: true,
  },
} as const satisfies Flags;

/** The flags of `lowrank compare`. */
export const compareFlags = {
  model: modelFlag,
  revision: revisionFlag,
  quantize: quantizeFlag,
  ...dataFlags,
  "eval-data": comparedFlags["eval-data"],
  methods: { type: "list", value: "full,lora,dora", help: `methods, of ${methodNames.join(", ")} (default: the usual ones of these)` },
  steps: { type: "integer", min: 1, help: "optimizer steps of each method", default: 200 },
  "batch-size": comparedFlags["batch-size"],
  lr: {
    type: "pairs",
    value: "method=rate",
    help: "peak learning rate of a method, as often as needed (default: each method's usual one)",
  },
  warmup: comparedFlags.warmup,
  ...methodFlags,
  "general-text": {
    type: "text",
    value: "FILE",
    path: "read",
    help: 'lines, or {"text"} rows, on which forgetting is measured (default: prose that ships with lowrank)',
  },
  "eval-rows": comparedFlags["eval-rows"],
  "latency-seconds": { type: "number", above: 0, help: "at most this long for timing one method's decoding", default: 20 },
  seed: { type: "integer", min: 0, help: "order of rows, initialization, dropout", default: 0 },
  "save-every": comparedFlags["save-every"],
  device: deviceFlag,
  out: comparedFlags.out,
  json: jsonFlag,
} as const satisfies Flags;
