import { shellWord } from "../terminal/shell-word.js";
import { type ExportFormat, type Exporting, within } from "./format.js";
import { adapterFileName, modelFileName, writeGgufAdapter, writeGgufModel } from "./gguf.js";
import { type OllamaTemplate, ollamaTemplate } from "./ollama-template.js";

const modelfileName = "Modelfile";

/** A Modelfile beside GGUF files: the base and the adapter, or one model. Ollama takes the chat template from the file, older ones from --template. */
export const ollama: ExportFormat = {
  summary: "GGUF files with a Modelfile",
  takes: "either",
  writes: [modelFileName, adapterFileName, modelfileName],
  write: async (exporting) => {
    const { adapter, isMerged, files, source } = exporting;
    const isBeside = adapter !== null && !isMerged;
    // The adapter first: what Ollama cannot take is told before the model is written.
    if (isBeside) await writeGgufAdapter(exporting, within(exporting, adapterFileName));
    await writeGgufModel(exporting, within(exporting, modelFileName));
    const path = within(exporting, modelfileName);
    const template = exporting.hasTemplate ? await ollamaTemplate(exporting) : null;
    await files.write(path, new TextEncoder().encode(modelfile(exporting, isBeside, template)));
    const name = source.name.toLowerCase().replace(/[^a-z0-9._-]+/g, "-");
    return [`ollama create ${shellWord(name)} -f ${shellWord(path)}`, `ollama run ${shellWord(name)}`];
  },
};

function modelfile({ loaded }: Exporting, isBeside: boolean, template: OllamaTemplate | null): string {
  const { model, tokenizer } = loaded;
  const stops = new Set([...model.stopTokens.flatMap((id) => tokenizer?.token(id) ?? []), ...(template?.stops ?? [])]);
  return [
    `FROM ./${modelFileName}`,
    ...(isBeside ? [`ADAPTER ./${adapterFileName}`] : []),
    ...(template ? [`TEMPLATE """${template.text}"""`] : []),
    ...[...stops].map((stop) => `PARAMETER stop ${JSON.stringify(stop)}`),
    "",
  ].join("\n");
}
