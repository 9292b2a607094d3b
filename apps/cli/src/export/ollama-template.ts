import type { Exporting } from "./format.js";

/** A chat template as Go's templates write it, and the texts that end an answer by it. */
export interface OllamaTemplate {
  readonly text: string;
  readonly stops: readonly string[];
}

/**
 * The model's chat template for Ollama, as @huggingface/ollama-utils knows or converts it: it goes by the beginning or the special tokens of the
 * template, so that what it took is said. Null, with a word, where there is none.
 */
export async function ollamaTemplate({ loaded: { tokenizer }, output }: Exporting): Promise<OllamaTemplate | null> {
  const none = (reason: string): null => {
    output.note(`warning: no TEMPLATE is written: ${reason}. Ollama then takes the chat template of the GGUF file, where it has one`);
    return null;
  };
  const template = tokenizer?.chatTemplate ?? null;
  if (!tokenizer || template === null) return none("the model has no chat template");
  const spelled = (id: number | null): string | undefined => (id === null ? undefined : (tokenizer.token(id) ?? undefined));
  const [begin, end] = [spelled(tokenizer.bosTokenId), spelled(tokenizer.eosTokenId)];
  // Loaded where it is asked for: it holds the templates of Ollama's library, a megabyte of them.
  const { convertGGUFTemplateToOllama } = await import("@huggingface/ollama-utils");
  const found = convertGGUFTemplateToOllama({
    chat_template: template,
    ...(begin !== undefined && { bos_token: begin }),
    ...(end !== undefined && { eos_token: end }),
  });
  // What asks nothing is no template that was understood.
  if (!found || !/\.(Prompt|Messages|Content)\b/.test(found.ollama.template))
    return none("@huggingface/ollama-utils knows none that is like the model's, and cannot convert it");
  const { template: text, params } = found.ollama;
  if (text.includes('"""')) return none('the template has """, which ends a text of a Modelfile');
  const origin = found.model.startsWith("library/") ? `that of ${found.model}, which looks alike` : "made from the model's own";
  output.note(`TEMPLATE is ${origin}; without --template Ollama takes the GGUF file's, which is the model's own as it is`);
  const stops = params?.["stop"];
  return { text, stops: Array.isArray(stops) ? stops.map(String) : [] };
}
