// What llama.cpp predicts behind each token of a text, in a process of its own, because it may end with it:
//   node llama-cpp-logits.mjs FILE.gguf [LORA.gguf] < ids, a JSON list a line
// Answers a line for each: for every position the log-probabilities of all tokens, by number. Without flash attention, keys and values in f32.
import { createInterface } from "node:readline";
import { llamaCpp, llamaOn } from "./llama-cpp.mjs";

const installed = await llamaCpp();
if ("reason" in installed) throw new Error(installed.reason);
const llama = await llamaOn(installed.module);
const [modelPath, loraPath] = process.argv.slice(2);
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
for await (const line of createInterface({ input: process.stdin })) {
  /** @type {number[]} */
  const ids = JSON.parse(line);
  const context = await model.createContext({
    contextSize: ids.length + 1,
    flashAttention: false,
    experimentalKvCacheKeyType: "F32",
    experimentalKvCacheValueType: "F32",
    swaFullCache: true,
    threads: 2,
    ...(loraPath && { lora: { adapters: [{ filePath: loraPath, scale: 1 }] } }),
  });
  const answers = await context
    .getSequence()
    .controlledEvaluate(ids.map((id) => [id, { generateNext: { probabilities: true, options: { temperature: 0 } } }]));
  const rows = answers.map((/** @type {any} */ answer) => {
    const row = Array(model._model.getVocabularySize?.() ?? answer.next.probabilities.size).fill(null);
    for (const [token, probability] of answer.next.probabilities) row[token] = Math.log(probability);
    return row;
  });
  process.stdout.write(`${JSON.stringify(rows)}\n`);
  await context.dispose();
}
await model.dispose();
await llama.dispose();
