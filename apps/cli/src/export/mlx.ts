import { mlxFiles, saveMlxAdapter } from "@lowrank/lora";
import { isGgufPath } from "@lowrank/models";
import { shellWord } from "../terminal/shell-word.js";
import type { ExportFormat } from "./format.js";

/** mlx-lm's adapter folder. A whole model needs no export: mlx-lm reads checkpoints of transformers. */
export const mlx: ExportFormat = {
  summary: "mlx-lm's adapter folder",
  takes: "adapter",
  writes: mlxFiles,
  write: async ({ source, adapter, folder, files }) => {
    if (adapter) await saveMlxAdapter(adapter, folder, { files, baseModel: source.base });
    // mlx-lm reads folders of transformers alone.
    const isFile = isGgufPath(source.modelFolder);
    const base = isFile ? "base" : source.base;
    return [
      `mlx_lm.generate --model ${shellWord(base)} --adapter-path ${shellWord(folder)} --prompt "…"`,
      ...(isFile ? [`lowrank export ${shellWord(source.base)} --format safetensors --out base`] : []),
    ];
  },
};
