import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { type Adapter, loadAdapter } from "@lowrank/lora";
import { type DataSet, type DataSource, type Examples, type LoadedModel, loadModel, readExamples, type Tokenizer } from "@lowrank/models";
import { type Device, type DeviceOptions, device, fileSource } from "@lowrank/tensor";
import { UsageError } from "./failure.js";
import type { Flags } from "./flags.js";
import { adapterFolder, type Fetching, modelFolder } from "./hub.js";
import { tellMainThread } from "./main-thread.js";
import type { Output } from "./output.js";
import { contextOf } from "./runs.js";
import { grouped } from "./terminal/format.js";

/** Flags that several commands share. */
export const modelFlag = {
  type: "text",
  value: "DIR",
  path: "read",
  help: "Hugging Face folder (config.json, *.safetensors, tokenizer.json) or hub name",
  required: true,
} as const satisfies Flags[string];
export const adapterFlag = {
  type: "text",
  value: "DIR",
  path: "read",
  help: "folder of an adapter, ours or PEFT's, or its name on the hub",
} as const satisfies Flags[string];
export const deviceFlag = {
  type: "choice",
  choices: ["auto", "cpu", "webgpu"],
  help: "where to compute; auto takes a real GPU, else cpu",
  default: "auto",
} as const satisfies Flags[string];
export const memoryFlag = {
  type: "number",
  above: 0,
  help: "GB to stay within, by rematerialization of what does not fit (default: what the device has)",
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
  { dtype, ...fetching }: Fetching & { readonly dtype?: "f32" } = {},
): Promise<LoadedModel & { readonly tokenizer: Tokenizer }> {
  const loaded = await loadModel(await modelFolder(path, fetching), { device: dev, ...(dtype && { dtype }) });
  const { tokenizer } = loaded;
  for (const warning of loaded.warnings) fetching.output?.note(`warning: ${warning}`);
  if (!tokenizer)
    throw new UsageError(
      `${path} has no tokenizer.json, so text cannot be read. Put the model's tokenizer.json and tokenizer_config.json beside its config.json.`,
    );
  return { ...loaded, tokenizer };
}

/** Puts the adapter of a folder on a model, if one is given. */
export async function openAdapter(
  model: LoadedModel["model"],
  path: string | undefined,
  output: Output,
  signal?: AbortSignal,
): Promise<Adapter | null> {
  if (path === undefined) return null;
  return loadAdapter(model, await adapterFolder(path, { output, signal }), {
    onWarning: (message: string) => output.note(`warning: ${message}`),
  });
}

/**
 * A data file, opened for the length of `use`: one that can be read twice, or a pipe. Rejects with the system's error, or with
 * CheckpointError for a folder, where it cannot be opened.
 */
export async function withSource<R>(path: string, use: (source: DataSource) => Promise<R>): Promise<R> {
  const info = await stat(path);
  if (!info.isFile() && !info.isDirectory()) return use(createReadStream(path));
  const source = await fileSource(path);
  try {
    return await use(source);
  } finally {
    await source.close?.();
  }
}

/** Milliseconds between two drawings of how far a file is read. */
const drawnMs = 500;

/**
 * Reads a data file and turns it into examples; says how many rows and what was cut. Rejects with the signal's reason, after a line that
 * says so, when it is told to stop.
 */
export async function openData(
  path: string,
  { model, tokenizer, config }: Pick<LoadedModel, "model" | "config"> & { readonly tokenizer: Tokenizer },
  output: Output | null,
  options: { readonly maxLength?: number | undefined; readonly rowLimit?: number | undefined; readonly signal?: AbortSignal } = {},
): Promise<DataSet<Examples>> {
  const { maxLength, rowLimit, signal } = options;
  let drawnAt = performance.now();
  const reading = withSource(path, (source) =>
    readExamples(source, path, tokenizer, {
      context: contextOf(model),
      vocabSize: config.vocab_size,
      ...(maxLength === undefined ? {} : { maxLength }),
      ...(rowLimit === undefined ? {} : { rowLimit }),
      ...(signal && { signal }),
      onRows(rows) {
        if (performance.now() - drawnAt < drawnMs) return;
        drawnAt = performance.now();
        output?.draw(`${path}: ${grouped(rows)} rows read …`);
      },
    }),
  );
  const { rowCount, layouts, unreadFields, ...data } = await reading.catch((error: unknown) => {
    if (signal?.aborted && error === signal.reason) output?.note(`Stopped while ${path} was read; what was there before is as it was.`);
    throw error;
  });
  const count = data.examples.length;
  const share = count < rowCount ? ` (${grouped(count)} of ${grouped(rowCount)}, evenly spread)` : "";
  const cut = data.truncatedCount > 0 ? `; ${grouped(data.truncatedCount)} cut to ${maxLength} tokens` : "";
  output?.note(
    `${path}: ${grouped(count)} rows${share}, ${grouped(data.tokenCount)} tokens, ${grouped(data.learnedTokenCount)} of them in the loss${cut}`,
  );
  output?.note(`  read as ${[...layouts].map(([name, rows]) => (layouts.size > 1 ? `${name} (${grouped(rows)} rows)` : name)).join(", ")}`);
  if (unreadFields.length > 0) output?.note(`  fields that are not used: ${unreadFields.join(", ")}`);
  return data;
}
