import { type Adapter, adapterBatch } from "@lowrank/lora";
import { type CausalLM, encodePrompt, TextGenerator, type Tokenizer } from "@lowrank/models";
import { largest } from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { revisionFlag } from "../hub.js";
import type { Output } from "../output.js";
import { contextOf } from "../runs.js";
import { deviceFlag, jsonFlag, modelFlag, openAdapter, openModel, withDevice } from "../session.js";
import { StreamedTexts } from "../streamed-texts.js";
import { grouped } from "../terminal/format.js";

const flags = {
  model: modelFlag,
  revision: revisionFlag,
  adapter: {
    type: "texts",
    value: "DIR",
    path: "read",
    help: "folder of an adapter, or its name on the hub; one for all prompts or one for each, in their order, none for the base",
  },
  prompt: { type: "texts", value: "TEXT", help: "what the model goes on from; several are answered in one batch", required: true },
  "max-new-tokens": { type: "integer", min: 1, help: "at most this many tokens; the end token ends earlier", default: 128 },
  temperature: { type: "number", min: 0, help: "0 is greedy; 1 samples as the model predicts", default: 0 },
  "top-k": { type: "integer", min: 0, help: "sample among the k likeliest tokens; 0: all", default: 0 },
  "top-p": { type: "number", above: 0, help: "sample among the likeliest tokens that hold this share; 1: all", default: 1 },
  seed: { type: "integer", min: 0, help: "of the sampling", default: 0 },
  device: deviceFlag,
  json: jsonFlag,
} as const satisfies Flags;

async function runGenerate({ values, output, signal }: CommandContext<typeof flags>): Promise<number> {
  const { prompt: texts = [], adapter: folders = [] } = values;
  if (folders.length > 1 && folders.length !== texts.length) {
    throw new UsageError(
      `There are ${texts.length} prompts and ${folders.length} adapters. Give one --adapter for all prompts, or one for each, in their order.`,
    );
  }
  return withDevice(values.device, output, async (dev) => {
    const { model, tokenizer } = await openModel(values.model, dev, { revision: values.revision, output, signal });
    await openAdapters(model, folders, output, signal);
    const context = contextOf(model);
    const prompts = texts.map((text) => encoded(text, tokenizer, context));
    const maxNewTokens = Math.min(values["max-new-tokens"], context - largest(prompts.map(({ length }) => length)));
    const generator = new TextGenerator(model);
    try {
      const start = performance.now();
      let firstToken = Number.NaN;
      const shown = new StreamedTexts(texts, prompts, tokenizer, output);
      const continuations = await generator.generate(prompts, {
        onToken(token, row) {
          if (Number.isNaN(firstToken)) firstToken = performance.now();
          shown.push(token, row);
        },
        maxNewTokens,
        temperature: values.temperature,
        ...(values["top-k"] > 0 ? { topK: values["top-k"] } : {}),
        ...(values["top-p"] < 1 ? { topP: values["top-p"] } : {}),
        seed: values.seed,
      });
      const end = performance.now();
      shown.finish();
      const results = continuations.map((tokens, row) => ({
        text: continuation(prompts[row] ?? [], tokens, tokenizer),
        tokens: tokens.length,
      }));
      const count = results.reduce((sum, { tokens }) => sum + tokens, 0);
      const isCut = results.some(({ tokens }) => tokens === maxNewTokens);
      // The first token of each text waits for the prompt to be read and for kernels to be planned.
      const later = count - texts.length;
      const rate = later > 0 && end > firstToken ? ` (${grouped((1000 * later) / (end - firstToken))} tokens/s after the first)` : "";
      output.note(`${count} tokens in ${((end - start) / 1000).toFixed(1)} s${rate}${isCut ? ", stopped at the length limit" : ""}`);
      const [only] = results;
      output.result(results.length === 1 && only ? only : { results });
      return 0;
    } finally {
      generator.dispose();
    }
  });
}

/** Puts the adapter of all prompts, or a batch of one for each, on the model. Each folder is read once. */
async function openAdapters(model: CausalLM, folders: readonly string[], output: Output, signal: AbortSignal): Promise<void> {
  const distinct = [...new Set(folders)].filter((folder) => folder !== "none");
  const adapters: Adapter[] = [];
  for (const folder of distinct) {
    const adapter = await openAdapter(model, folder, output, signal);
    if (adapter) adapters.push(adapter);
  }
  // One adapter for all may be of any method; a batch of several needs LoRA.
  if (distinct.length === 0 || new Set(folders).size === 1) return;
  adapterBatch(
    model,
    adapters,
    folders.map((folder) => (folder === "none" ? null : distinct.indexOf(folder))),
  );
}

function encoded(text: string, tokenizer: Tokenizer, contextLength: number): number[] {
  const prompt = encodePrompt(tokenizer, text);
  if (prompt.length === 0) throw new UsageError("--prompt is empty, and the tokenizer adds no start token. Give at least one character.");
  if (prompt.length >= contextLength)
    throw new UsageError(`--prompt has ${prompt.length} tokens, and the model's context is ${contextLength}. Shorten the prompt.`);
  return prompt;
}

/** The text of the new tokens, decoded together with the prompt, because a tokenizer may drop the space in front of a text's first word. */
function continuation(prompt: readonly number[], tokens: readonly number[], tokenizer: Tokenizer): string {
  const whole = tokenizer.decode([...prompt, ...tokens]);
  const before = tokenizer.decode([...prompt]);
  return whole.startsWith(before) ? whole.slice(before.length) : tokenizer.decode([...tokens]);
}

export const generateCommand = defineCommand({
  name: "generate",
  makes: "text",
  summary: "Let a model, with or without adapters, go on from one or several prompts.",
  flags,
  examples: [
    'lowrank generate --model ./model --adapter run --prompt "Once upon a time" --max-new-tokens 64',
    'lowrank generate --model ./model --prompt "Hello" --adapter runs/french --prompt "Hello" --adapter runs/german',
  ],
  run: runGenerate,
});
