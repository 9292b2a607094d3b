import type { Gpt2 } from "@lowrank/models";
import { TextGenerator } from "@lowrank/models";
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
export function decoder(model: Gpt2, count: number, name = "lowrank"): Decoder {
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
