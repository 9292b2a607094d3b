import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  type CausalLM,
  checkpointOutline,
  ggufOnHub,
  isGgufPath,
  modelFiles,
  modelOutline,
  packingIn,
  readConfig,
  readJson,
  weightFiles,
} from "@lowrank/models";
import type { Device, FileSystem, QuantizedType } from "@lowrank/tensor";
import { UsageError } from "../failure.js";
import { configFolder, type Fetching, hubModel } from "../hub.js";

/** The dtypes that frozen weights may be asked to have. */
export const weightTypes = ["f32", "bf16", "f16"] as const;
type WeightType = (typeof weightTypes)[number];

/** A model that is planned for, of which no more than headers are read. */
export interface PlannedModel {
  /** The model as a command would load it: `dtype` for all weights, else as they are stored. The same for each device that plans. */
  outline(device: Device, as: { readonly dtype: WeightType | undefined; readonly quantize: QuantizedType | null }): Promise<CausalLM>;
}

/**
 * The model of a folder, a GGUF file, a config.json alone, or a name on the hub: from the headers of its weights where they are here, or are quantized; else as
 * config.json says. Rejects with UsageError where there is none, and for a config.json alone whose weights are quantized.
 */
export async function plannedModel(path: string, fetching: Fetching): Promise<PlannedModel> {
  const warned = new Set<string>();
  const warn = (warnings: readonly string[]): void => {
    for (const warning of warnings) if (!warned.has(warning)) fetching.output?.note(`warning: ${warning}`);
    for (const warning of warnings) warned.add(warning);
  };
  const fromHeaders = (files: FileSystem, folder: string): PlannedModel => ({
    async outline(device, { dtype, quantize }) {
      const { model, warnings } = await checkpointOutline(folder, { device, files, dtype: dtype ?? "auto", quantize });
      warn(warnings);
      return model;
    },
  });
  if (ggufOnHub(path) && !existsSync(path)) {
    const { files, folder } = await hubModel(path, fetching);
    return fromHeaders(files, folder);
  }
  const isFolder = await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
  const isFile = !isFolder && ((existsSync(path) && !isGgufPath(path)) || path.endsWith(".json"));
  if (isFile) return fromConfig(dirname(path), path);
  const folder = await configFolder(path, fetching);
  if (isGgufPath(folder) || (isFolder && weightFiles((await modelFiles.list(folder)) ?? []))) return fromHeaders(modelFiles, folder);
  if (isFolder || !(await saysPacked(folder))) return fromConfig(folder, join(folder, "config.json"));
  const { files, folder: remote } = await hubModel(path, fetching);
  return fromHeaders(files, remote);
}

async function saysPacked(folder: string): Promise<boolean> {
  return packingIn(await readConfig(modelFiles, folder), join(folder, "config.json")) !== null;
}

/** How a checkpoint of this config stores its weights. */
function storedType(config: Readonly<Record<string, unknown>>): WeightType {
  const named = config["dtype"] ?? config["torch_dtype"];
  return named === "bfloat16" ? "bf16" : named === "float16" ? "f16" : "f32";
}

/** Floats of 8 bits become bf16 when they are loaded. */
const widened = "fp8";

async function fromConfig(folder: string, path: string): Promise<PlannedModel> {
  const config = await readJson(modelFiles, path);
  if (!config) throw new UsageError(`There is no ${path}. Give a model's folder, its GGUF file, or the path of its config.json.`);
  const packing = packingIn(config, path);
  if (packing && packing.name !== widened)
    throw new UsageError(
      `${path} says that the weights are quantized by ${packing.name}; how much they take stands in the headers of their files, which are not in ${folder}. Give the model's folder with its weights, or its name on the hub.`,
    );
  return {
    outline: async (device, { dtype, quantize }) =>
      modelOutline(config, { device, dtype: dtype ?? (packing ? "bf16" : storedType(config)), quantize }),
  };
}
