import { adapterFiles, saveAdapter } from "@lowrank/lora";
import { nodeFiles } from "@lowrank/tensor";
import { cardName } from "../card/model-card.js";
import { templateName } from "../out/mark.js";
import { peftUse, writeCard } from "./card.js";
import type { ExportFormat } from "./format.js";

/** The folder that PEFT's save_pretrained writes, with a card: for PEFT, transformers, vLLM and the hub. */
export const peft: ExportFormat = {
  summary: "PEFT's folder with a model card",
  takes: "adapter",
  writes: [...adapterFiles, templateName, cardName],
  write: async (exporting) => {
    const { source, adapter, folder, files } = exporting;
    if (!adapter) return []; // it takes adapters alone
    await saveAdapter(adapter, folder, { files });
    const template = await nodeFiles.open(nodeFiles.join(source.folder, templateName));
    if (template) {
      try {
        await files.write(files.join(folder, templateName), await template.read(0, template.byteLength));
      } finally {
        await template.close?.();
      }
    }
    await writeCard(exporting, peftUse(source.base, source.name));
    return [];
  },
};
