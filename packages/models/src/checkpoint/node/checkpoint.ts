import { checkDevice, checkPath, isAddress, nodeFiles } from "@lowrank/tensor";
import type { CausalLM } from "../../causal-lm.js";
import type { HubOptions } from "../../hub/node/environment.js";
import { resolveModel } from "../../hub/node/resolve.js";
import { type GgufFiles, withGguf } from "../gguf-files.js";
import { type LoadedModel, type LoadOptions, loadModel as loadFrom } from "../load.js";
import { type SaveModelOptions, saveModel as saveTo } from "../save.js";

/** Node's file system, in which a GGUF file is a model's folder too: it has config.json, tokenizer.json and so on, made of its metadata. */
export const modelFiles: GgufFiles = withGguf(nodeFiles);

/** As for any file system, but Node's by default; with that one, a hub id is looked up in the cache and fetched. */
export type NodeLoadOptions = LoadOptions & { readonly hub?: HubOptions };

/**
 * Reads a checkpoint from a folder in the Hugging Face layout, from an address (https://…) that is such a folder, or by hub id from the
 * Hugging Face cache or over https; or from a GGUF file, by its path, its address, or as "org/name:file.gguf" of the hub. Rejects with CheckpointError naming what is wrong, and with DeviceError without a device.
 * transformers' AutoModelForCausalLM.from_pretrained.
 */
export async function loadModel(pathOrId: string, options: NodeLoadOptions): Promise<LoadedModel> {
  checkPath(pathOrId, "loadModel");
  const { hub, ...rest } = options ?? {};
  if (rest.files !== undefined || isAddress(pathOrId)) return loadFrom(pathOrId, rest);
  checkDevice(rest.device, "loadModel"); // before anything is fetched
  return loadFrom(await resolveModel(pathOrId, hub), { ...rest, files: nodeFiles });
}

/** Writes a whole checkpoint that transformers loads into a folder; see `saveModel` of the browser entry for the details. */
export function saveModel(model: CausalLM, folder: string, options: Partial<SaveModelOptions> = {}): Promise<void> {
  return saveTo(model, folder, { ...options, files: options.files ?? nodeFiles });
}
