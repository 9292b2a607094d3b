import { optim } from "@lowrank/autograd";
import { type Device, device } from "@lowrank/tensor";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { evaluationBatches } from "../src/data/index.js";
import { TextGenerator } from "../src/generate/generate.js";
import { initModel } from "../src/init-model.js";
import { evaluator, train } from "../src/train/index.js";

let dev: Device;
let model: Awaited<ReturnType<typeof initModel>>;
beforeAll(async () => {
  dev = await device("cpu");
  model = await initModel(
    {
      model_type: "llama",
      vocab_size: 512,
      hidden_size: 128,
      intermediate_size: 384,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      max_position_embeddings: 512,
      tie_word_embeddings: true,
    },
    { device: dev, seed: 3 },
  );
});
afterAll(() => dev.dispose());

const examples = Array.from({ length: 64 }, (_, line) => {
  const ids = Array.from({ length: 96 }, (_value, i) => (line * 31 + i * 7) % 512);
  return { line, ids, labels: ids };
});

/** Long enough to be seen on any machine, with the plans made before. */
const works: readonly (readonly [name: string, prepare: () => Promise<() => Promise<unknown>>])[] = [
  [
    "generation",
    async () => {
      const generator = new TextGenerator(model);
      const generate = (): Promise<unknown> => generator.generate([[1, 2, 3]], { maxNewTokens: 500, stopTokens: [] });
      await generate();
      return generate;
    },
  ],
  [
    "evaluation",
    async () => {
      const meter = evaluator(model);
      const batches = evaluationBatches(examples, 16, { layout: model.batchLayout, lengthLimit: 96 });
      await meter.run(batches);
      return async () => {
        for (let i = 0; i < 3; i++) await meter.run(batches);
      };
    },
  ],
  [
    "a step of training over many batches",
    async () => {
      let started = 0;
      const run = (): Promise<unknown> =>
        train({
          model,
          parameters: model.namedParameters(),
          examples,
          lengthLimit: 96,
          steps: 1,
          batchSize: 8,
          accumulate: 4,
          seed: started++,
          schedule: optim.constant({ peak: 1e-4 }),
        });
      await run();
      return run;
    },
  ],
];

describe.each(works)("during %s on the cpu", (_, prepare) => {
  it("a timer of 5 ms fires many times", async () => {
    const work = await prepare();
    const start = performance.now();
    let [count, longestMs, last] = [0, 0, start];
    const timer = setInterval(() => {
      count++;
      longestMs = Math.max(longestMs, performance.now() - last);
      last = performance.now();
    }, 5);
    await work();
    clearInterval(timer);
    const ms = performance.now() - start;
    // Every 8 ms where the machine is idle; busy ones take the thread away for longer, and planning still blocks it.
    expect(count).toBeGreaterThan(Math.max(5, ms / 200));
    expect(longestMs).toBeLessThan(2000);
  });
});
