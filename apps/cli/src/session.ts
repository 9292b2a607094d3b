import { readFile } from "node:fs/promises";
import { type Adapter, loadAdapter } from "@lowrank/lora";
import { type DataSet, encodeRows, type LoadedModel, loadModel, parseRows, type Tokenizer } from "@lowrank/models";
import { type Device, type DeviceOptions, device } from "@lowrank/tensor";
import { UsageError } from "./failure.js";
import type { Flags } from "./flags.js";
import { tellMainThread } from "./main-thread.js";
import type { Output } from "./output.js";
import { contextOf } from "./runs.js";
import { grouped } from "./terminal/format.js";

/** Flags that several commands share. */
export const modelFlag = {
  type: "text",
  value: "DIR",
  help: "Hugging Face folder (config.json, *.safetensors, tokenizer.json) or hub name",
  required: true,
} as const satisfies Flags[string];
export const adapterFlag = { type: "text", value: "DIR", help: "folder of an adapter, ours or PEFT's" } as const satisfies Flags[string];
export const deviceFlag = {
  type: "choice",
  choices: ["auto", "cpu", "webgpu"],
  help: "where to compute; auto takes a real GPU, else cpu",
  default: "auto",
} as const satisfies Flags[string];
export const memoryFlag = {
  type: "number",
  above: 0,
  help: "GB to stay within, by computing values twice that do not fit (default: what the device has)",
} as const satisfies Flags[string];
export const jsonFlag = { type: "switch", help: "one JSON object on stdout, everything else on stderr" } as const satisfies Flags[string];

/** Opens a device for the length of `use`; its memory and threads are given back in any case. Says which, where there is an output. */
export async function withDevice<R>(
  name: "auto" | "cpu" | "webgpu",
  output: Output | null,
  use: (device: Device) => Promise<R>,
  options: DeviceOptions = {},
): Promise<R> {
  if (name !== "cpu") tellMainThread({ kind: "native", isNative: true });
  const opened = await device(name, options);
  if (opened.name === "cpu") tellMainThread({ kind: "native", isNative: false });
  output?.note(`device: ${opened.name} (${opened.description})`);
  try {
    return await use(opened);
  } finally {
    opened.dispose();
  }
}

/** A model with the tokenizer that a command cannot do without. Rejects with UsageError where none ships. */
export async function openModel(
  path: string,
  dev: Device,
  options: { readonly dtype?: "f32" } = {},
): Promise<LoadedModel & { readonly tokenizer: Tokenizer }> {
  const loaded = await loadModel(path, { device: dev, ...options });
  const { tokenizer } = loaded;
  if (!tokenizer)
    throw new UsageError(
      `${path} has no tokenizer.json, so text cannot be read. Put the model's tokenizer.json and tokenizer_config.json beside its config.json.`,
    );
  return { ...loaded, tokenizer };
}

/** Puts the adapter of a folder on a model, if one is given. */
export async function openAdapter(model: LoadedModel["model"], path: string | undefined, output: Output): Promise<Adapter | null> {
  return path === undefined ? null : loadAdapter(model, path, { onWarning: (message: string) => output.note(`warning: ${message}`) });
}

/** Reads a JSONL file and turns it into examples; says how many rows and what was cut. */
export async function openData(
  path: string,
  { model, tokenizer, config }: Pick<LoadedModel, "model" | "config"> & { readonly tokenizer: Tokenizer },
  output: Output | null,
  options: { readonly maxLength?: number | undefined; readonly rowLimit?: number | undefined } = {},
): Promise<DataSet> {
  const rows = parseRows(await readFile(path, "utf8"), path);
  const { maxLength, rowLimit = rows.length } = options;
  // Evenly spread, because neighbouring rows are often alike.
  const chosen =
    rowLimit >= rows.length
      ? rows
      : Array.from({ length: rowLimit }, (_, i) => rows[Math.floor((i * rows.length) / rowLimit)] as (typeof rows)[number]);
  const data = encodeRows(chosen, path, tokenizer, {
    context: contextOf(model),
    vocabSize: config.vocab_size,
    ...(maxLength === undefined ? {} : { maxLength }),
  });
  const share = chosen.length < rows.length ? ` (${grouped(chosen.length)} of ${grouped(rows.length)}, evenly spread)` : "";
  const cut = data.truncatedCount > 0 ? `; ${grouped(data.truncatedCount)} cut to ${maxLength} tokens` : "";
  output?.note(
    `${path}: ${grouped(data.examples.length)} rows${share}, ${grouped(data.tokenCount)} tokens, ${grouped(data.learnedTokenCount)} of them in the loss${cut}`,
  );
  return data;
}
