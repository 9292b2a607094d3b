import type { Flags } from "../flags.js";

/** Flags of the commands that train several runs on the same rows into one folder. */
export const comparedFlags = {
  data: { type: "text", value: "FILE.jsonl", path: "read", help: "rows as for train", required: true },
  "eval-data": {
    type: "text",
    value: "FILE.jsonl",
    path: "read",
    help: "held-out rows (default: every tenth row of --data, which is then not trained on)",
  },
  "batch-size": { type: "integer", min: 1, help: "rows a step", default: 8 },
  warmup: { type: "integer", min: 0, help: "steps of linear rise, before the rate falls as a cosine", default: 0 },
  "max-length": { type: "integer", min: 2, help: "cut longer rows to N tokens" },
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
