import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const models = fileURLToPath(new URL("../../dist/node.js", import.meta.url));

/** Encodes rows that are made as they are read, and draws batches of them; a process of its own, whose memory is measured. */
const script = `
import { BatchSequence, evaluationSequence, readExamples } from ${JSON.stringify(models)};
const encoder = new TextEncoder();
function* parts() {
  for (let first = 0; first < 1e6; first += 1000) {
    let text = "";
    for (let i = first; i < first + 1000; i++) text += '{"prompt":"' + i + ' lamps","completion":" ' + (i % 7) + '"}\\n';
    yield encoder.encode(text);
  }
}
const tokenizer = { eosTokenId: 2, encode: (text) => Array.from({ length: text.length }, (_, i) => text.charCodeAt(i)) };
const { examples, tokenCount } = await readExamples(parts(), "rows.jsonl", tokenizer, { context: 64, vocabSize: 128 });
const shape = { layout: "packed", lengthLimit: 64 };
const sequence = new BatchSequence(examples, { ...shape, batchSize: 8, seed: 1 });
const counts = [0, 1, sequence.batchesPerEpoch].map((n) => sequence.batch(n).rowLimit);
const [first] = evaluationSequence(examples, 16, shape);
console.log(JSON.stringify({ rows: examples.length, tokenCount, counts, first: first.rowCount, bytes: process.resourceUsage().maxRSS * 1024 }));
`;

test("a million rows are encoded, and batched, in less than 600 MB of resident memory", () => {
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  expect(stderr).toBe("");
  const { rows, tokenCount, bytes } = JSON.parse(stdout) as { rows: number; tokenCount: number; bytes: number };
  expect(rows).toBe(1_000_000);
  expect(tokenCount).toBeGreaterThan(14_000_000);
  expect(bytes).toBeLessThan(600e6);
});
