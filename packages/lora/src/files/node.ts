import { type FileSystem, isAddress, nodeFiles, urlFiles } from "@lowrank/tensor";
import type { Adapter } from "../adapter.js";
import type { AdaptableModel } from "../targeting/model.js";
import { baseQuantization as quantization } from "./base.js";
import { type LoadOptions, loadAdapter as load } from "./load.js";
import { type OutlineOptions, adapterOutline as outline } from "./outline.js";
import { type SaveOptions, saveAdapter as save } from "./save.js";
import { type SaveMlxOptions, saveMlxAdapter as saveMlx } from "./save-mlx.js";

/** `saveAdapter` of the browser's entry, on Node's files where none are given. */
export function saveAdapter(adapter: Adapter, folder: string, options: Partial<SaveOptions> = {}): Promise<void> {
  return save(adapter, folder, { ...options, files: options.files ?? nodeFiles });
}

/** `saveMlxAdapter` of the browser's entry, on Node's files where none are given. */
export function saveMlxAdapter(adapter: Adapter, folder: string, options: Partial<SaveMlxOptions> = {}): Promise<void> {
  return saveMlx(adapter, folder, { ...options, files: options.files ?? nodeFiles });
}

/** `baseQuantization` of the browser's entry, on Node's files where none are given and the folder is not an address. */
export function baseQuantization(folder: string, options: { readonly files?: FileSystem } = {}): Promise<string | null> {
  return quantization(folder, { files: options.files ?? (isAddress(folder) ? urlFiles() : nodeFiles) });
}

/** `loadAdapter` of the browser's entry, on Node's files where none are given and the folder is not an address. */
export function loadAdapter(model: AdaptableModel, folder: string, options: LoadOptions = {}): Promise<Adapter> {
  return load(model, folder, { ...options, files: options.files ?? (isAddress(folder) ? urlFiles() : nodeFiles) });
}

/** `adapterOutline` of the browser's entry, on Node's files where none are given. */
export function adapterOutline(
  folders: readonly string[],
  options: Pick<OutlineOptions, "device"> & Partial<OutlineOptions>,
): Promise<AdaptableModel> {
  return outline(folders, { ...options, files: options.files ?? nodeFiles });
}
