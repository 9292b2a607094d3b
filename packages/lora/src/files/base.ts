import { checkFiles, checkPath, type FileSystem, isAddress, openFile, readSafetensors, urlFiles } from "@lowrank/tensor";

/** The entry of adapter_model.safetensors' metadata that says what the base was quantized to; PEFT has no field for it, and refuses none here. */
export const quantizationKey = "base_quantization";

/**
 * What an adapter's base was quantized to when it was trained: "nf4", …; null where it was not, or the file does not say. Rejects with CheckpointError for a
 * damaged file. `files`: where the folder lies; when absent `urlFiles()` for an address, else Node's files (in Node).
 */
export async function baseQuantization(
  folder: string,
  { files = isAddress(folder) ? urlFiles() : undefined }: { readonly files?: FileSystem } = {},
): Promise<string | null> {
  checkPath(folder, "baseQuantization");
  checkFiles(files, "baseQuantization");
  const source = await openFile(files, files.join(folder, "adapter_model.safetensors"));
  if (!source) return null;
  const file = await readSafetensors(source);
  try {
    return file.metadata[quantizationKey] ?? null;
  } finally {
    await file.close();
  }
}
