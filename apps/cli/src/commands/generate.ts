import { generate } from "@lowrank/models";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { adapterFlag, deviceFlag, jsonFlag, modelFlag, openAdapter, openModel, withDevice } from "../session.js";

const flags = {
  model: modelFlag,
  adapter: adapterFlag,
  prompt: { type: "text", value: "TEXT", help: "what the model goes on from", required: true },
  "max-new-tokens": { type: "integer", min: 1, help: "at most this many tokens; the end token ends earlier", default: 128 },
  temperature: { type: "number", min: 0, help: "0 is greedy; 1 samples as the model predicts", default: 0 },
  "top-k": { type: "integer", min: 0, help: "sample among the k likeliest tokens; 0: all", default: 0 },
  "top-p": { type: "number", above: 0, help: "sample among the likeliest tokens that hold this share; 1: all", default: 1 },
  seed: { type: "integer", min: 0, help: "of the sampling", default: 0 },
  device: deviceFlag,
  json: jsonFlag,
} as const satisfies Flags;

async function runGenerate({ values, output }: CommandContext<typeof flags>): Promise<number> {
  return withDevice(values.device, output, async (dev) => {
    const { model, tokenizer } = await openModel(values.model, dev);
    await openAdapter(model, values.adapter, output);
    const prompt = tokenizer.encode(values.prompt);
    if (prompt.length === 0) throw new UsageError("--prompt is empty, and the tokenizer adds no start token. Give at least one character.");
    if (prompt.length >= model.contextLength) {
      throw new UsageError(`--prompt has ${prompt.length} tokens, and the model's context is ${model.contextLength}. Shorten the prompt.`);
    }
    const maxNewTokens = Math.min(values["max-new-tokens"], model.contextLength - prompt.length);
    const start = performance.now();
    const tokens = await generate(model, prompt, {
      maxNewTokens,
      temperature: values.temperature,
      ...(values["top-k"] > 0 ? { topK: values["top-k"] } : {}),
      ...(values["top-p"] < 1 ? { topP: values["top-p"] } : {}),
      seed: values.seed,
      ...(tokenizer.eosTokenId === null ? {} : { stopTokens: [tokenizer.eosTokenId] }),
    });
    const seconds = (performance.now() - start) / 1000;
    // Decoded together, because a tokenizer may drop the space in front of a text's first word.
    const whole = tokenizer.decode([...prompt, ...tokens]);
    const before = tokenizer.decode(prompt);
    const text = whole.startsWith(before) ? whole.slice(before.length) : tokenizer.decode(tokens);
    output.say(`${values.prompt}${text}`);
    output.note(
      `${tokens.length} tokens in ${seconds.toFixed(1)} s (${Math.round(tokens.length / seconds)} tokens/s)${tokens.length === maxNewTokens ? ", stopped at the length limit" : ""}`,
    );
    output.result({ text, tokens: tokens.length });
    return 0;
  });
}

export const generateCommand = defineCommand({
  name: "generate",
  summary: "Let a model, with or without an adapter, go on from a prompt.",
  flags,
  examples: ['lowrank generate --model ./model --adapter run --prompt "Once upon a time" --max-new-tokens 64'],
  run: runGenerate,
});
