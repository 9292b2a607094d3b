// What llama.cpp predicts behind each token of a text, in a process of its own, because it may end with it:
//   node llama-cpp-logits.mjs OUT FILE.gguf [LORA.gguf] < ids, a JSON list
// OUT gets the log-probabilities of all tokens behind each position, f32 [positions, vocabulary]. Without flash attention, keys and values in f32.
import { readFileSync, writeFileSync } from "node:fs";
import { llamaCpp, llamaOn } from "./llama-cpp.mjs";

const installed = await llamaCpp();
if ("reason" in installed) throw new Error(installed.reason);
const llama = await llamaOn(installed.module);
const [out = "", modelPath, loraPath] = process.argv.slice(2);
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
/** @type {number[]} */
const ids = JSON.parse(readFileSync(0, "utf8"));
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
const size = answers[0].next.probabilities.size;
const rows = new Float32Array(ids.length * size).fill(Number.NEGATIVE_INFINITY);
for (const [position, answer] of answers.entries())
  for (const [token, probability] of answer.next.probabilities) rows[position * size + token] = Math.log(probability);
writeFileSync(out, rows);
await context.dispose();
await model.dispose();
await llama.dispose();
