import { type Adapter, adapterDigest, baseQuantization, loadAdapter } from "@lowrank/lora";
import { isGgufPath, type LoadedModel, loadModel, type Tokenizer } from "@lowrank/models";
import { type Device, type DeviceOptions, device, nodeFiles, type QuantizedType, quantizedTypes } from "@lowrank/tensor";
import { openBase } from "./base.js";
import { UsageError } from "./failure.js";
import type { Flags } from "./flags.js";
import { adapterFolder, type Fetching } from "./hub.js";
import { tellMainThread } from "./main-thread.js";
import { templateName } from "./out/mark.js";
import type { Output } from "./output.js";

/** Flags that several commands share. */
export const modelFlag = {
  type: "text",
  value: "DIR|FILE.gguf",
  path: "read",
  help: "Hugging Face folder (config.json, *.safetensors, tokenizer.json), GGUF file, or hub name (user/name, user/name:file.gguf)",
  required: true,
} as const satisfies Flags[string];
/** --model of a command that takes adapters, which name their base. */
export const baseFlag = {
  ...modelFlag,
  help: `${modelFlag.help}; default: the base that the adapter names`,
  required: false,
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
export const quantizeFlag = {
  type: "choice",
  choices: ["none", ...quantizedTypes],
  help: "quantize the weights of dense layers and experts while they are loaded; the rest stays as stored (default: none, or as the adapter was trained)",
} as const satisfies Flags[string];
/** That of commands whose --quantize says what is written. */
export const baseQuantizeFlag = {
  type: "choice",
  choices: quantizeFlag.choices,
  help: "what the base is quantized to while it is loaded, before the adapter is added to it (default: as when the adapter was trained)",
} as const satisfies Flags[string];
export const memoryFlag = {
  type: "number",
  above: 0,
  help: "GB to stay within, by rematerialization of what does not fit: on the cpu of the whole process, else of the device (default: what the device has)",
} as const satisfies Flags[string];
export const jsonFlag = { type: "switch", help: "one JSON object on stdout, everything else on stderr" } as const satisfies Flags[string];

/** Kernels of a step where it is not planned yet: those of a model of some twenty layers. */
const usualKernelCount = 540;

/**
 * Bytes that a process takes beside the cpu device's memory: Node, the program, its threads, what is read and written at a time, and what
 * planning a step of so many kernels leaves to be collected. Measured: 169 to 191 MB for 167 kernels, 248 to 277 MB for 821.
 */
export function ownProcessBytes(kernelCount: number = usualKernelCount): number {
  return 160e6 + 120e3 * kernelCount;
}

/** With less no device opens, and nobody says how much would do. */
const leastDeviceBytes = 3e5;

/** The bytes that --memory leaves a device: on the cpu it says what the whole process may take. */
export function deviceBytes(gigabytes: number, name: string): number {
  return Math.max(leastDeviceBytes, 1e9 * gigabytes - (name === "cpu" ? ownProcessBytes() : 0));
}

/** What is said where --quantize stands beside --method full. */
export const quantizedFull = (): UsageError =>
  new UsageError(
    "--quantize freezes weights in blocks, and --method full trains them. Leave one of the two out, or choose another method.",
  );

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

/** What --quantize says. */
export type QuantizeChoice = QuantizedType | "none" | undefined;

/** What the base is quantized to: as `flag` says, else as it was when the adapters were trained, which is told. */
export async function baseQuantizedTo(
  asked: QuantizeChoice,
  adapters: readonly string[],
  { flag = "--quantize", ...fetching }: Fetching & { readonly flag?: string } = {},
): Promise<QuantizedType | null> {
  if (asked !== undefined) return asked === "none" ? null : asked;
  for (const path of adapters) {
    const recorded = await baseQuantization(await adapterFolder(path, fetching));
    const type = quantizedTypes.find((name) => name === recorded);
    if (!type) continue;
    fetching.output?.note(`the base is quantized to ${type}, as when ${path} was trained (${flag} none leaves it as it is)`);
    return type;
  }
  return null;
}

/** How a command opens its model. */
interface Opening extends Fetching {
  readonly dtype?: "f32";
  readonly quantize?: QuantizeChoice;
  /** Adapters that are put on it, which know what their base is and what it was quantized to. */
  readonly adapters?: readonly string[];
}

/** A model, or the base that its adapters name, with the tokenizer that a command cannot do without. Rejects with UsageError where none ships, and as `openBase` does. */
export async function openModel(
  model: string | undefined,
  dev: Device,
  { dtype, quantize: asked, adapters = [], ...fetching }: Opening = {},
): Promise<LoadedModel & { readonly tokenizer: Tokenizer }> {
  const { revision: _base, ...elsewhere } = fetching;
  const { model: path, folder } = await openBase(model, adapters, fetching);
  const quantize = await baseQuantizedTo(asked, adapters, elsewhere);
  const loaded = await loadModel(folder, { device: dev, ...(dtype && { dtype }), quantize });
  const { tokenizer } = loaded;
  for (const warning of loaded.warnings) fetching.output?.note(`warning: ${warning}`);
  if (!tokenizer)
    throw new UsageError(
      isGgufPath(path)
        ? `${path} has no tokenizer in its metadata, so text cannot be read. Convert the model again with its tokenizer.`
        : `${path} has no tokenizer.json, so text cannot be read. Put the model's tokenizer.json and tokenizer_config.json beside its config.json.`,
    );
  return { ...loaded, tokenizer };
}

/**
 * The chat template that an adapter was trained with, which lies beside it; null where none does. Warns where it is another than the model's,
 * and lets the tokenizer render with it, so that the model is asked as it was taught.
 */
export async function openTemplate(tokenizer: Tokenizer, path: string, output: Output, signal?: AbortSignal): Promise<string | null> {
  const source = await nodeFiles.open(nodeFiles.join(await adapterFolder(path, { output, signal }), templateName));
  if (!source) return null;
  try {
    const template = new TextDecoder().decode(await source.read(0, source.byteLength));
    if (template !== tokenizer.chatTemplate) {
      output.note(`warning: ${path} was trained with another chat template than the model has; it is asked with the adapter's`);
      tokenizer.useChatTemplate(template);
    }
    return template;
  } finally {
    await source.close?.();
  }
}

/** Puts the adapter of a folder on a model, if one is given. Rejects with UsageError where the model's weights hold it already. */
export async function openAdapter(
  model: LoadedModel["model"],
  path: string | undefined,
  output: Output,
  signal?: AbortSignal,
): Promise<Adapter | null> {
  if (path === undefined) return null;
  const adapter = await loadAdapter(model, await adapterFolder(path, { output, signal }), {
    onWarning: (message: string) => output.note(`warning: ${message}`),
  });
  const { merged = [], folder } = model.origin ?? {};
  if (merged.length > 0 && merged.includes(await adapterDigest(adapter)))
    throw new UsageError(
      `The weights in ${folder} hold the adapter ${path} already (its config.json says so): it would count twice. Leave --adapter out, or give the base that was merged from.`,
    );
  return adapter;
}
