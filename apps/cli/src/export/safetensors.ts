import { adapterDigest, mergedParameters } from "@lowrank/lora";
import { checkpointFiles, saveModel } from "@lowrank/models";
import { cardName } from "../card/model-card.js";
import { transformersUse, writeCard } from "./card.js";
import type { ExportFormat } from "./format.js";

/** A whole checkpoint as transformers has it, with a card: an adapter is merged. */
export const safetensors: ExportFormat = {
  summary: "a whole checkpoint of transformers with a model card; an adapter is merged",
  takes: "model",
  writes: [...checkpointFiles, cardName],
  write: async (exporting) => {
    const { source, loaded, adapter, folder, files } = exporting;
    const merged = adapter ? { tensors: mergedParameters([adapter]), merged: [await adapterDigest(adapter)] } : {};
    await saveModel(loaded.model, folder, { files, ...merged, dtype: "as-stored" });
    await writeCard(exporting, transformersUse(source.name));
    return [];
  },
};
