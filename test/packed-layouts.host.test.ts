// Rows of each layout lie one behind the other in a packed batch: tokens and labels as in a batch of their own, next to no padding.
import { fileURLToPath } from "node:url";
import { BatchSequence, evaluationBatches, ignoredLabel, readExamples, readTokenizer, type Tokenizer } from "@lowrank/models";
import { nodeFiles } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";

let tokenizer: Tokenizer;
beforeAll(async () => {
  const found = await readTokenizer(nodeFiles, fileURLToPath(new URL("../examples/base-model/model", import.meta.url)));
  if (!found) throw new Error("the small model has a tokenizer");
  found.useChatTemplate(
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
  );
  tokenizer = found;
});

const words = (from: number, count: number): string =>
  Array.from({ length: count }, (_, i) => ["whale", "sea", "ship", "red"][(from + i) % 4]).join(" ");
const turns = (row: number): object[] =>
  Array.from({ length: 1 + (row % 3) }, (_, turn) => [
    { role: "user", content: words(row + turn, 2 + row) },
    { role: "assistant", content: words(row, 1 + turn + (row % 5)) },
  ]).flat();
const layouts: Readonly<Record<string, (row: number) => object>> = {
  text: (row) => ({ text: words(row, 3 + 2 * row) }),
  "prompt and completion": (row) => ({ prompt: words(row, 1 + row), completion: ` ${words(row + 1, 1 + (row % 4))}` }),
  messages: (row) => ({ messages: turns(row) }),
  ShareGPT: (row) => ({
    conversations: [
      { from: "human", value: words(row, 2 + row) },
      { from: "gpt", value: words(row, 3) },
    ],
  }),
  Alpaca: (row) => ({ instruction: words(row, 2), input: words(row, row % 3), output: words(row, 1 + row) }),
};

describe.each(Object.keys(layouts))("rows of %s", (name) => {
  test("are packed without padding between them", async () => {
    const text = Array.from({ length: 19 }, (_, row) => JSON.stringify(layouts[name]?.(row))).join("\n");
    const { examples } = await readExamples(text, "rows.jsonl", tokenizer, { context: 512, vocabSize: 4096 });
    const lengthLimit = Math.max(...[...examples].map(({ ids }) => ids.length));
    const sequence = new BatchSequence(examples, { batchSize: 4, seed: 3, lengthLimit, layout: "packed" });
    const batches = [
      ...evaluationBatches(examples, 4, { lengthLimit, layout: "packed" }),
      ...[0, 1, 2, 3, 4].map((n) => sequence.batch(n)),
    ];
    const byLine = new Map([...examples].map((example) => [example.line, example]));
    const seen = new Set<number>();
    for (const { ids, labels, positions, rowCount, lines = [], tokenCount, learnedTokenCount } of batches) {
      expect(rowCount).toBe(1);
      let [at, learned] = [0, 0];
      for (const line of lines) {
        const example = byLine.get(line);
        if (!example) throw new Error(`line ${line} is no row`);
        seen.add(line);
        for (const [i, id] of example.ids.entries()) {
          expect([ids[at], labels[at], positions?.[at]]).toEqual([id, example.labels[i], i]);
          if (i > 0 && labels[at] !== ignoredLabel) learned++;
          at++;
        }
      }
      expect(tokenCount).toBe(at);
      expect(learnedTokenCount).toBe(learned);
      expect(learned).toBeGreaterThan(0);
      expect(Array.from(labels.subarray(at))).toEqual(new Array(labels.length - at).fill(ignoredLabel));
    }
    expect(seen.size).toBe(19);
    // What is left at a batch's end makes few lengths, so few plans; rows padded to the longest would be far more.
    const trained = batches.slice(-5);
    const sum = (of: (batch: (typeof batches)[number]) => number): number => trained.reduce((total, batch) => total + of(batch), 0);
    expect(sum(({ length }) => length)).toBeLessThan(1.25 * sum(({ tokenCount }) => tokenCount));
  });
});
