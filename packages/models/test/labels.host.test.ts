import { compile, device, tensor } from "@lowrank/tensor";
import { expect, test } from "vitest";
import { initModel } from "../src/index.js";

const dev = await device("cpu", { threads: 1 });
const configs = [
  { model_type: "llama", vocab_size: 11, hidden_size: 8, intermediate_size: 12, num_hidden_layers: 1, num_attention_heads: 2 },
  { model_type: "gpt2", vocab_size: 11, n_embd: 8, n_layer: 1, n_head: 2, n_positions: 16 },
];
const i32 = (values: number[][]) => tensor(values, { device: dev, dtype: "i32" });
const ids = i32([
  [1, 2, 3],
  [4, 5, 6],
]);

test.each(configs)(
  "$model_type: labels that are no tokens are refused with row and position, where they come from JavaScript",
  async (config) => {
    const model = await initModel({ max_position_embeddings: 16, ...config }, { device: dev, seed: 1 });
    for (const label of [-1, 9999, 11, -101]) {
      const labels = i32([
        [1, 2, 3],
        [4, label, 6],
      ]);
      expect(() => model.loss(ids, labels)).toThrow(
        new RegExp(`^Label ${label} at row 1, position 1 is neither a token of the model's vocabulary of 11 \\(0 to 10\\) nor -100`),
      );
      expect(() => model.loss(ids, labels)).toThrow(RangeError);
      // What is assigned to is no longer what it was made of.
      labels.assign(ids);
      expect(await model.loss(ids, labels).item()).toBe(await model.loss(ids, ids).item());
    }
    const masked = i32([
      [-100, 2, 10],
      [0, -100, 6],
    ]);
    const eager = await model.loss(ids, masked).item();
    expect(Number.isFinite(eager)).toBe(true);
    const compiled = compile((labels: typeof masked) => model.loss(ids, labels));
    expect(await compiled(masked).item()).toBeCloseTo(eager, 5);
    compiled.dispose();
  },
);
