import { basename } from "node:path";
import { adapterDigest, mergedParameters, plainPairs } from "@lowrank/lora";
import { isGgufPath, isHubId, saveGguf, saveGgufAdapter } from "@lowrank/models";
import type { GgufValueToWrite } from "@lowrank/tensor";
import { grouped } from "../terminal/format.js";
import { shellWord } from "../terminal/shell-word.js";
import { type ExportFormat, type Exporting, within } from "./format.js";

export const modelFileName = "model.gguf";
export const adapterFileName = "adapter.gguf";

/** llama.cpp's files: of an adapter its LoRA file, or with --merge, and of a model, the whole model. */
export const gguf: ExportFormat = {
  summary: "llama.cpp's files: a LoRA file, or with --merge a whole model",
  takes: "either",
  writes: [modelFileName, adapterFileName],
  write: async (exporting) => {
    const { adapter, isMerged, fileName, source } = exporting;
    if (adapter && !isMerged) {
      const path = within(exporting, fileName ?? adapterFileName);
      await writeGgufAdapter(exporting, path);
      const isFile = isGgufPath(source.modelFolder);
      const base = isFile ? source.modelFolder : "base.gguf";
      return [
        `llama-cli -m ${shellWord(base)} --lora ${shellWord(path)} -p "…"`,
        ...(isFile ? [] : [`lowrank export ${shellWord(source.base)} --format gguf --out base.gguf`]),
      ];
    }
    const path = within(exporting, fileName ?? modelFileName);
    await writeGgufModel(exporting, path);
    return [`llama-cli -m ${shellWord(path)} -p "…"`];
  },
};

/** Where the base is said: its name on the hub, or the last part of its path. */
function generalOf({ source }: Exporting): ReadonlyMap<string, GgufValueToWrite> {
  const text = (value: string): GgufValueToWrite => ({ type: "string", value });
  return new Map<string, GgufValueToWrite>([
    ...(source.license === null ? [] : [["general.license", text(source.license)] as const]),
    ["general.base_model.count", { type: "u32", value: 1 }],
    ["general.base_model.0.name", text(isHubId(source.base) ? source.base : basename(source.base))],
  ]);
}

/** The model, with its adapter merged where there is one that is to be. */
export async function writeGgufModel(exporting: Exporting, path: string): Promise<void> {
  const { source, loaded, adapter, isMerged, files, type, output } = exporting;
  if (!loaded.tokenizer) output.note("warning: the model has no tokenizer, so that llama.cpp takes and gives numbers of tokens alone");
  await saveGguf(loaded.model, path, {
    files,
    type,
    name: source.name,
    tokenizer: loaded.tokenizer,
    general: generalOf(exporting),
    ...(adapter && isMerged && { tensors: mergedParameters([adapter]), merged: [await adapterDigest(adapter)] }),
    onNote: (text) => output.note(`warning: ${text}`),
    onTensor: (name, done, count) => output.draw(`${grouped(done)} of ${grouped(count)}: ${name}`),
  });
  output.draw("");
}

/** The adapter as llama.cpp's LoRA file. */
export async function writeGgufAdapter(exporting: Exporting, path: string): Promise<void> {
  const { source, loaded, adapter, files } = exporting;
  if (!adapter) return;
  await saveGgufAdapter(loaded.model, plainPairs(adapter, "llama.cpp's LoRA file"), path, {
    files,
    name: source.name,
    general: generalOf(exporting),
  });
}
