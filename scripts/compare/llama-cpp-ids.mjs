// What llama.cpp makes of texts by a file's vocabulary, in a process of its own, because it may end with it: node llama-cpp-ids.mjs FILE.gguf < texts, a JSON text
// a line; answers a line of ids each.
import { createInterface } from "node:readline";
import { llamaCpp, llamaOn } from "./llama-cpp.mjs";

const installed = await llamaCpp();
if ("reason" in installed) throw new Error(installed.reason);
const llama = await llamaOn(installed.module);
const model = await llama.loadModel({ modelPath: process.argv[2], vocabOnly: true, gpuLayers: 0 });
for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(`${JSON.stringify([...model._model.tokenize(JSON.parse(line), true)])}\n`);
await model.dispose();
await llama.dispose();
