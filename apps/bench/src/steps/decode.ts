import type { CausalLM } from "@lowrank/models";
import { type GeneratorOptions, TextGenerator } from "@lowrank/models";
import { inputIds } from "../formula.js";
import type { Side } from "../timing.js";

/** Tokens of the prompt that decoding starts from. */
const promptLength = 8;

/** Greedy decoding with a cache. */
export interface Decoder {
  /** The ids that every text begins with. */
  readonly prompt: readonly number[];
  readonly side: Side;
  tokens(): Promise<number[]>;
  dispose(): void;
}

/** Continues a prompt of 8 ids by `count` tokens, batch 1, the likeliest token each time; one repetition is one whole text. */
export function decoder(model: CausalLM, count: number, name = "lowrank"): Decoder {
  const generator = new TextGenerator(model);
  const prompt = [...inputIds(promptLength, model.vocabSize)];
  const tokens = async (): Promise<number[]> => {
    const [text = []] = await generator.generate([prompt], { maxNewTokens: count, stopTokens: [] });
    return text;
  };
  return {
    prompt,
    tokens,
    side: {
      name,
      async run(times) {
        const start = performance.now();
        for (let i = 0; i < times; i++) await tokens();
        return (performance.now() - start) / 1000;
      },
    },
    dispose: () => generator.dispose(),
  };
}

/**
 * Greedy decoding of some texts at once whose middle token has `context` others before it; reading the prompts is not timed. One repetition
 * is one further token of each.
 */
export function decodingAt(
  model: CausalLM,
  name: string,
  batch: number,
  context: number,
  options: GeneratorOptions = {},
): Side & Disposable {
  const count = 24;
  const generator = new TextGenerator(model, options);
  const ids = [...inputIds(batch * context, model.vocabSize)];
  const length = context - count / 2;
  const prompts = Array.from({ length: batch }, (_, row) => ids.slice(row * context, row * context + length));
  return {
    name,
    async run(times) {
      let seconds = 0;
      for (let done = 0; done < times; done += count) {
        let start = 0;
        const onToken = (): void => void (start ||= performance.now());
        await generator.generate(prompts, { maxNewTokens: count + 1, stopTokens: [], onToken });
        seconds += (performance.now() - start) / 1000;
      }
      return (seconds * times) / (Math.ceil(times / count) * count);
    },
    [Symbol.dispose]: () => generator.dispose(),
  };
}

/** Reads a prompt of `length` tokens and chooses the token after it; one repetition is one prompt. */
export function promptOf(generator: TextGenerator, length: number): Side {
  const prompt = [...inputIds(length, generator.model.vocabSize)];
  return {
    name: `${length} tokens`,
    async run(times) {
      const start = performance.now();
      for (let i = 0; i < times; i++) await generator.generate([prompt], { maxNewTokens: 1, stopTokens: [] });
      return (performance.now() - start) / 1000;
    },
  };
}
