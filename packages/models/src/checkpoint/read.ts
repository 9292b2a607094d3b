import { CheckpointError, type Device } from "@lowrank/tensor";
import { type FamilyConfig, readFamily } from "../families/read.js";
import { readConfig } from "./folder.js";
import { folderSource } from "./folder-source.js";
import type { GgufFiles } from "./gguf-files.js";
import { readGgufWeights } from "./gguf-weights.js";
import { mergedField, mergedIn } from "./merged-field.js";
import { splitPacking } from "./packing-field.js";
import { type ReadWeights, readNumbers, readWeights, type WeightOptions } from "./weights.js";

/** A checkpoint whose config was read. */
export interface OpenedCheckpoint {
  readonly config: FamilyConfig;
  /** Digests of the adapters that its weights hold already. */
  readonly merged: readonly string[];
  /**
   * Reads the weights. Rejects with CheckpointError as `loadModel` does. With `isOutline` the tensors have neither memory nor values, and of the files only
   * headers are read.
   */
  weights(options: WeightOptions): Promise<ReadWeights>;
  /** The numbers of a parameter, as the files have them. `read`: the config as the tensors say that it is. */
  numbers(read: FamilyConfig, device: Device, name: string): Promise<Float32Array>;
}

/** Reads the config of a folder in the Hugging Face layout, or of a GGUF file. Rejects with CheckpointError where it is missing, wrong, or of no family. */
export async function openCheckpoint(files: GgufFiles, folder: string): Promise<OpenedCheckpoint> {
  const path = files.join(folder, "config.json");
  const { [mergedField]: held, ...whole } = await readConfig(files, folder);
  const { json, packing } = splitPacking(whole, path);
  const config = readFamily(json, path);
  return {
    config,
    merged: mergedIn(held, path),
    async weights(options) {
      const gguf = await files.gguf(folder);
      if (!gguf) {
        const source = await folderSource(files, folder, config, packing, options.isOutline);
        return readWeights(source, config, options).finally(() => source.close());
      }
      try {
        if (options.quantize)
          throw new CheckpointError(
            `${folder}: a GGUF file keeps the types that its weights have, and is not quantized to ${options.quantize}. Load it as it is, without \`quantize\` (none), or take the folder that it was made of.`,
            folder,
          );
        return await readGgufWeights(gguf, config, options);
      } finally {
        await gguf.close();
      }
    },
    async numbers(read, device, name) {
      const source = await folderSource(files, folder, config, packing);
      return readNumbers(source, read, device, name).finally(() => source.close());
    },
  };
}
