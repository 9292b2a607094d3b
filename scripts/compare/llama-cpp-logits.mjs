// What llama.cpp predicts behind each token of some texts, in a process of its own, because it may end with it:
//   node llama-cpp-logits.mjs < a JSON list of { ids, model, lora?, out }
// Each `out` gets the log-probabilities of all tokens behind each position, f32 [positions, vocabulary], as soon as they are there: what takes long is
// llama.cpp's start. Without flash attention, keys and values in f32.
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { llamaCpp, llamaOn } from "./llama-cpp.mjs";

const installed = await llamaCpp();
if ("reason" in installed) throw new Error(installed.reason);
const llama = await llamaOn(installed.module);
for (const { ids, model: modelPath, lora, out } of JSON.parse(readFileSync(0, "utf8"))) {
  const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
  const context = await model.createContext({
    contextSize: ids.length + 1,
    flashAttention: false,
    experimentalKvCacheKeyType: "F32",
    experimentalKvCacheValueType: "F32",
    swaFullCache: true,
    threads: 2,
    ...(lora && { lora: { adapters: [{ filePath: lora, scale: 1 }] } }),
  });
  const asked = ids.map((/** @type {number} */ id) => [id, { generateNext: { probabilities: true, options: { temperature: 0 } } }]);
  const answers = await context.getSequence().controlledEvaluate(asked);
  const size = answers[0].next.probabilities.size;
  const rows = new Float32Array(ids.length * size).fill(Number.NEGATIVE_INFINITY);
  for (const [position, answer] of answers.entries())
    for (const [token, probability] of answer.next.probabilities) rows[position * size + token] = Math.log(probability);
  writeFileSync(`${out}.part`, rows);
  renameSync(`${out}.part`, out);
  await context.dispose();
  await model.dispose();
}
await llama.dispose();
