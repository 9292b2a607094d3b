import { type Adapter, adapterBatch } from "@lowrank/lora";
import { type CausalLM, encodePrompt, TextGenerator, type Tokenizer } from "@lowrank/models";
import { largest } from "@lowrank/tensor";
import { answered, noteCutJson } from "../chat/answers.js";
import { askedTokens, askingFlags, isChat, type Opening, openingOf } from "../chat/conversation.js";
import { samplingFlags, samplingOf } from "../chat/sampling.js";
import { heldTo } from "../chat/schema.js";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { revisionFlag } from "../hub.js";
import type { Output } from "../output.js";
import { contextOf } from "../runs.js";
import { baseFlag, deviceFlag, jsonFlag, openAdapter, openModel, openTemplate, quantizeFlag, withDevice } from "../session.js";
import { StreamedTexts } from "../streamed-texts.js";
import { grouped } from "../terminal/format.js";

const flags = {
  model: baseFlag,
  revision: revisionFlag,
  quantize: quantizeFlag,
  adapter: {
    type: "texts",
    value: "DIR",
    path: "read",
    help: "folder or hub name of an adapter; one for all prompts or one for each, in their order, none for the base",
  },
  prompt: { type: "texts", value: "TEXT", help: "what the model goes on from, or is asked; several are answered in one batch" },
  ...askingFlags,
  "max-new-tokens": { type: "integer", min: 1, help: "at most this many tokens; the end token ends earlier", default: 128 },
  ...samplingFlags,
  device: deviceFlag,
  json: jsonFlag,
} as const satisfies Flags;

type Context = CommandContext<typeof flags>;

async function runGenerate({ values, output, signal }: Context): Promise<number> {
  const { prompt: given = [], adapter: folders = [], message = [] } = values;
  if (given.length === 0 && message.length === 0)
    throw new UsageError('--prompt is missing. Add --prompt TEXT, or --message "user:TEXT" for a chat.');
  const questions = given.length === 0 ? [null] : given;
  if (folders.length > 1 && folders.length !== questions.length) {
    throw new UsageError(
      `There are ${questions.length} prompts and ${folders.length} adapters. Give one --adapter for all prompts, or one for each, in their order.`,
    );
  }
  const opening = await openingOf(values);
  const held = await heldTo(values.schema);
  return withDevice(values.device, output, async (dev) => {
    const { model, tokenizer } = await openModel(values.model, dev, {
      revision: values.revision,
      quantize: values.quantize,
      adapters: folders.filter((folder) => folder !== "none"),
      output,
      signal,
    });
    await openAdapters(model, folders, output, signal);
    const constraint = held(model, tokenizer);
    const isAsked = await asksByTemplate(values, tokenizer, folders, output, signal);
    const context = contextOf(model);
    const prompts = questions.map((text) => promptTokens(text, isAsked ? opening : null, tokenizer, context));
    const maxNewTokens = Math.min(values["max-new-tokens"], context - largest(prompts.map(({ length }) => length)));
    const generator = new TextGenerator(model);
    try {
      const start = performance.now();
      let firstToken = Number.NaN;
      // An answer stands alone; a text goes on from its prompt.
      const shown = new StreamedTexts(isAsked ? questions.map(() => "") : given, output);
      const answers = await answered(generator, tokenizer, prompts, {
        ...samplingOf(values),
        hasLogProbabilities: output.isJson,
        maxNewTokens,
        stopTexts: values.stop ?? [],
        constraint,
        signal,
        onText(text, row) {
          if (Number.isNaN(firstToken)) firstToken = performance.now();
          shown.push(text, row);
        },
      });
      const end = performance.now();
      shown.finish();
      const results = answers.map(({ text, tokens, logProbabilities, end: endedBy, isComplete }) => ({
        text,
        tokens: tokens.length,
        ids: tokens,
        logProbabilities,
        end: endedBy,
        ...(isComplete === null ? {} : { isComplete }),
      }));
      const count = results.reduce((sum, { tokens }) => sum + tokens, 0);
      const isCut = results.some(({ end: endedBy }) => endedBy === "length");
      // The first token of each text waits for the prompt to be read and for kernels to be planned.
      const later = count - questions.length;
      const rate = later > 0 && end > firstToken ? ` (${grouped((1000 * later) / (end - firstToken))} tokens/s after the first)` : "";
      output.note(
        `${count} ${count === 1 ? "token" : "tokens"} in ${((end - start) / 1000).toFixed(1)} s${rate}${isCut ? ", stopped at the length limit" : ""}`,
      );
      noteCutJson(answers, output);
      const [only] = results;
      output.result(results.length === 1 && only ? only : { results });
      return 0;
    } finally {
      generator.dispose();
    }
  });
}

/** Whether prompts are questions for the chat template, which is said where no flag does. */
async function asksByTemplate(
  values: Context["values"],
  tokenizer: Tokenizer,
  folders: readonly string[],
  output: Output,
  signal: AbortSignal,
): Promise<boolean> {
  let isTrainedSo = false;
  for (const folder of new Set(folders))
    if (folder !== "none" && (await openTemplate(tokenizer, folder, output, signal)) !== null) isTrainedSo = true;
  const isAsked = isChat(values, tokenizer, isTrainedSo);
  if (isAsked && isTrainedSo && !values.chat)
    output.note("the adapter was trained on conversations: the prompt is asked through the chat template (--raw goes on from it as it is)");
  return isAsked;
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

/** A prompt's tokens: behind an opening a question, else a text to go on from. */
function promptTokens(text: string | null, opening: Opening | null, tokenizer: Tokenizer, contextLength: number): number[] {
  const prompt = opening
    ? askedTokens(tokenizer, text === null ? opening.messages : [...opening.messages, { role: "user", content: text }], opening.tools)
    : encodePrompt(tokenizer, text ?? "");
  if (prompt.length === 0) throw new UsageError("--prompt is empty, and the tokenizer adds no start token. Give at least one character.");
  if (prompt.length >= contextLength)
    throw new UsageError(`--prompt has ${prompt.length} tokens, and the model's context is ${contextLength}. Shorten the prompt.`);
  return prompt;
}

export const generateCommand = defineCommand({
  name: "generate",
  makes: "text",
  summary: "Let a model, with or without adapters, go on from one or several prompts, or answer them through its chat template.",
  flags,
  examples: [
    'lowrank generate --model ./model --adapter run --prompt "Once upon a time" --max-new-tokens 64',
    'lowrank generate --model ./model --chat --system "Answer briefly." --prompt "Who are you?"',
    'lowrank generate --model ./model --adapter run --prompt "Order 17: two lamps" --schema order.json',
    'lowrank generate --model ./model --prompt "Hello" --adapter runs/french --prompt "Hello" --adapter runs/german',
  ],
  run: runGenerate,
});
