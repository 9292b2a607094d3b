import { nodeFiles } from "@lowrank/tensor";
import type { Adapter } from "../adapter.js";
import type { AdaptableModel } from "../targeting/model.js";
import { type LoadOptions, loadAdapter as load } from "./load.js";
import { type OutlineOptions, adapterOutline as outline } from "./outline.js";
import { type SaveOptions, saveAdapter as save } from "./save.js";

/** `saveAdapter` of the browser's entry, on Node's files where none are given. */
export function saveAdapter(adapter: Adapter, folder: string, options: Partial<SaveOptions> = {}): Promise<void> {
  return save(adapter, folder, { files: nodeFiles, ...options });
}

/** `loadAdapter` of the browser's entry, on Node's files where none are given. */
export function loadAdapter(model: AdaptableModel, folder: string, options: Partial<LoadOptions> = {}): Promise<Adapter> {
  return load(model, folder, { files: nodeFiles, ...options });
}

/** `adapterOutline` of the browser's entry, on Node's files where none are given. */
export function adapterOutline(
  folders: readonly string[],
  options: Pick<OutlineOptions, "device"> & Partial<OutlineOptions>,
): Promise<AdaptableModel> {
  return outline(folders, { files: nodeFiles, ...options });
}
