import { type Device, device, tensor } from "@lowrank/tensor";
import { beforeAll, expect, test } from "vitest";
import { TextGenerator } from "../../src/generate/generate.js";
import { initModel } from "../../src/init-model.js";

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

test("a text that grows beyond the original length is read again with the long factors, beside one that does not", async () => {
  const config = {
    model_type: "phi3",
    vocab_size: 29,
    hidden_size: 12,
    intermediate_size: 8,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    max_position_embeddings: 64,
    original_max_position_embeddings: 9,
    rope_theta: 100,
    rope_scaling: { type: "longrope", short_factor: [1, 1.2, 1.5], long_factor: [2, 5, 9] },
    initializer_range: 0.7,
  };
  const model = await initModel(config, { device: dev, seed: 3 });
  const generator = new TextGenerator(model);
  /** The likeliest token behind a text, each time read from its beginning. */
  const next = async (ids: readonly number[]): Promise<number> => {
    const logits = await model.forward(tensor([[...ids]], { device: dev, dtype: "i32" })).data();
    const last = [...logits].slice(-config.vocab_size);
    return last.indexOf(Math.max(...last));
  };
  const prompts = [
    [3, 7, 1, 12, 9, 4],
    [5, 11],
  ];
  const grown = await generator.generate(prompts, { maxNewTokens: 6, stopTokens: [] });
  for (const [i, prompt] of prompts.entries()) {
    const ids = [...prompt];
    for (let step = 0; step < 6; step++) ids.push(await next(ids));
    expect(grown[i]).toEqual(ids.slice(prompt.length));
  }
  generator.dispose();
});
