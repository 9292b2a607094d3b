// The counts of docs/methods.md's table are those of the library, on the shapes of the models that it names.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type AdapterOptions, applyAdapter, type MethodName, NotApplicableError } from "@lowrank/lora";
import { modelOutline } from "@lowrank/models";
import { device, planningDevice } from "@lowrank/tensor";
import { describe, expect, test } from "vitest";

const markdown = readFileSync(fileURLToPath(new URL("../docs/methods.md", import.meta.url)), "utf8");

/** Method and the counts for GPT-2 small, Llama-3.2-1B and Llama-3-8B. */
const rows = [...markdown.matchAll(/^\| `([\w-]+)`[^|]*\|[^|]*\|[^|]*\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|/gm)].map(
  ([, method = "", ...counts]) => ({ method, counts: counts.map((count) => Number(count.replaceAll(",", ""))) }),
);

/** Widths as in the checkpoints; the vocabulary, which no adapter depends on, is small. */
const models = [
  { layers: 12, of: (n_layer: number) => ({ model_type: "gpt2", vocab_size: 16, n_embd: 768, n_layer, n_head: 12, n_positions: 64 }) },
  { layers: 16, of: (layers: number) => llama(layers, 2048, 8192, 32, 8) },
  { layers: 32, of: (layers: number) => llama(layers, 4096, 14336, 32, 8) },
];

function llama(layers: number, width: number, inner: number, heads: number, kvHeads: number) {
  return {
    model_type: "llama",
    vocab_size: 16,
    hidden_size: width,
    intermediate_size: inner,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    max_position_embeddings: 64,
    tie_word_embeddings: true,
  };
}

test("the table has a row for each method of the library", () => {
  expect(rows.map(({ method }) => method)).toContain("lora");
  expect(rows).toHaveLength(19);
});

/** Trained numbers of each method; all layers are alike, so that one and two of them say what many have. */
async function counted(config: (layers: number) => object, layers: number): Promise<Map<string, number>> {
  const few: Map<string, number>[] = [];
  for (const count of [1, 2]) {
    const real = await device("cpu", { threads: 1 });
    const model = modelOutline(config(count) as Record<string, unknown>, { device: planningDevice(real).device, dtype: "f32" });
    const found = new Map<string, number>();
    for (const { method } of rows) {
      if (method === "full") continue;
      const needed = method === "adalora" ? { totalSteps: 100 } : {};
      try {
        const options = { method: method as MethodName, ...needed, onWarning: () => {} } as AdapterOptions;
        const adapter = applyAdapter(model, options);
        found.set(
          method,
          adapter.parameters().reduce((sum, { size }) => sum + size, 0),
        );
        adapter.disable();
        for (const parameter of adapter.parameters()) parameter.dispose();
      } catch (error) {
        if (!(error instanceof NotApplicableError)) throw error;
        found.set(method, 0);
      }
    }
    few.push(found);
    real.dispose();
  }
  const [one, two] = few as [Map<string, number>, Map<string, number>];
  return new Map([...one].map(([method, first]) => [method, first + (layers - 1) * ((two.get(method) ?? 0) - first)]));
}

describe.each([0, 1, 2])("model %i of the table", (column) => {
  test("each method trains what the table says", async () => {
    const { of, layers } = models[column] as (typeof models)[number];
    const found = await counted(of, layers);
    const said = new Map(rows.filter(({ method }) => method !== "full").map(({ method, counts }) => [method, counts[column]]));
    expect(Object.fromEntries(found)).toEqual(Object.fromEntries(said));
  });
});
