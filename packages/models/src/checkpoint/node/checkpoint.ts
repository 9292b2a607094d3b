import { type FileSystem, nodeFiles, type Tensor } from "@lowrank/tensor";
import type { CausalLM } from "../../causal-lm.js";
import { type LoadedModel, type LoadOptions, loadModel as loadFrom } from "../load.js";
import { saveModel as saveTo } from "../save.js";
import { type HubOptions, resolveModel } from "./hub.js";

/** As for any file system, but Node's by default; with that one, a hub id is looked up in the cache and fetched. */
export type NodeLoadOptions = Omit<LoadOptions, "files"> & { readonly files?: FileSystem; readonly hub?: HubOptions };

/**
 * Reads a checkpoint from a folder in the Hugging Face layout, or by hub id from the Hugging Face cache or over https.
 * Rejects with CheckpointError naming what is wrong. transformers' AutoModelForCausalLM.from_pretrained.
 */
export async function loadModel(pathOrId: string, options: NodeLoadOptions): Promise<LoadedModel> {
  const { files, hub, ...rest } = options;
  if (files) return loadFrom(pathOrId, { ...rest, files });
  return loadFrom(await resolveModel(pathOrId, hub), { ...rest, files: nodeFiles });
}

/** Writes a whole checkpoint that transformers loads into a folder; see `saveModel` of the browser entry for the details. */
export function saveModel(
  model: CausalLM,
  folder: string,
  options: { readonly files?: FileSystem; readonly tensors?: ReadonlyMap<string, Tensor> } = {},
): Promise<void> {
  return saveTo(model, folder, { ...options, files: options.files ?? nodeFiles });
}
