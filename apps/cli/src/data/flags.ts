import type { Flags, Values } from "../flags.js";

/** The flags that say what data is read and how, of every command that reads some. */
export const dataFlags = {
  data: {
    type: "texts",
    value: "FILE",
    path: "read",
    help: "rows: JSONL, JSON, CSV, TSV or Parquet, packed or not; a folder, a pattern, hub:USER/NAME; several, each with :WEIGHT perhaps",
    required: true,
  },
  map: { type: "texts", value: "prompt=COLUMN,completion=COLUMN", help: "columns that stand for a row's fields" },
  format: { type: "text", value: '"{COLUMN}…"', help: "a row's text (with --map completion=COLUMN: its prompt) out of columns" },
  "train-on": {
    type: "choice",
    choices: ["all-turns", "last-turn"],
    help: "which of the assistant's turns in a conversation are in the loss",
    default: "all-turns",
  },
  "max-length": { type: "integer", min: 2, help: "cut longer rows to N tokens (default: refuse rows longer than the context)" },
  "long-texts": {
    type: "choice",
    choices: ["cut", "split"],
    help: "what --max-length does to rows of text: cut them, or split them into several",
    default: "cut",
  },
} as const satisfies Flags;

/** Their values. */
export type DataValues = Values<typeof dataFlags>;
