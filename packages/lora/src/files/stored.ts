import {
  type ByteSource,
  type Device,
  type FileSystem,
  type Json,
  jsonObject,
  openFile,
  readSafetensors,
  readText,
  type Tensor,
} from "@lowrank/tensor";
import { AdapterError, listed } from "../errors.js";
import { openConfig } from "../peft/config-file.js";
import type { AdaptableModel } from "../targeting/model.js";
import { quantizationKey } from "./base.js";
import type { NamedTensor } from "./layouts/layout.js";
import { adapterLayouts } from "./layouts/table.js";

/** A tensor of a stored adapter. */
export interface StoredTensor extends Omit<NamedTensor, "isTransposed"> {
  /** Its numbers as PEFT has them, f32. Rejects with CheckpointError where one is not finite. */
  values(device: Device): Promise<Tensor>;
}

/** An adapter of a folder, whichever tool wrote it, as PEFT would have written it. */
export interface StoredAdapter {
  /** The fields of adapter_config.json as PEFT has them. */
  readonly config: Json;
  /** Paths of both files, for errors. */
  readonly configPath: string;
  readonly tensorsPath: string;
  /** By PEFT's full names. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** What the base was quantized to when it was trained; null where it was not, or nothing says so. */
  readonly quantization: string | null;
  close(): Promise<void>;
}

/**
 * Opens the adapter of a folder, ours, PEFT's or mlx-lm's, and says its fields and tensors as PEFT does. With a model, paths that begin
 * otherwise than its modules' become its own, where that is exact. Reads headers. Rejects with AdapterError where there is none or what PEFT
 * cannot say, naming it; with CheckpointError for damaged files.
 */
export async function openStoredAdapter(files: FileSystem, folder: string, model: AdaptableModel | null = null): Promise<StoredAdapter> {
  const source = await openConfig(files, folder);
  const configPath = source.name;
  const given = jsonObject(await readText(source));
  if (typeof given === "string") throw new AdapterError(`${configPath}: this is ${given}. Save the adapter again.`);
  const layout = adapterLayouts.find(({ isOf }) => isOf(given));
  if (!layout) throw new AdapterError(`${configPath}: this is no adapter's configuration. Save the adapter again.`);
  const file = await readSafetensors(await openTensors(files, folder, layout.tensorsFile));
  try {
    const modules = model?.namedModules() ?? null;
    const { config, tensors } = layout.read({ config: given, entries: file.entries, configPath, tensorsPath: file.name, modules });
    const quantization = file.metadata[quantizationKey] ?? null;
    return { config, configPath, tensorsPath: file.name, tensors: byName(tensors, file), quantization, close: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
}

type TensorsFile = Awaited<ReturnType<typeof readSafetensors>>;

function byName(tensors: readonly NamedTensor[], file: TensorsFile): ReadonlyMap<string, StoredTensor> {
  const stored = new Map<string, StoredTensor>();
  for (const { key, shape, isTransposed, names } of tensors) {
    const name = names.at(-1) ?? key;
    const other = stored.get(name);
    if (other)
      throw new AdapterError(
        `${file.name}: ${listed([other.key, key])} are one tensor of two adapters, or twice of one. Save one adapter alone.`,
        [other.key, key],
      );
    stored.set(name, {
      key,
      shape,
      names,
      values: async (device) => {
        const { tensor } = await file.weight(key, { device, dtype: "f32" });
        return isTransposed ? tensor.t() : tensor;
      },
    });
  }
  return stored;
}

async function openTensors(files: FileSystem, folder: string, name: string): Promise<ByteSource> {
  const source = await openFile(files, files.join(folder, name));
  if (source) return source;
  const names = (await files.list(folder)) ?? [];
  if (names.includes("adapter_model.bin")) {
    throw new AdapterError(
      `${folder} holds its tensors as adapter_model.bin, a Python pickle, which can run any code and is not read. Load it once in Python and save it with save_pretrained(..., safe_serialization=True).`,
    );
  }
  throw new AdapterError(
    `${folder} holds no ${name}. Give the folder that saveAdapter, PEFT's save_pretrained(..., safe_serialization=True) or mlx_lm.lora wrote.`,
  );
}
