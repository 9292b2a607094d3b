import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "../repository.js";
import type { Side } from "../timing.js";

/** What is used of node-llama-cpp. */
interface Sequence {
  evaluate(tokens: readonly number[], options: { readonly temperature: number }): AsyncGenerator<number, void, void>;
  clearHistory(): Promise<void>;
}
interface Llama {
  readonly systemInfo: string;
  loadModel(options: { readonly modelPath: string }): Promise<{
    createContext(options: object): Promise<{ getSequence(): Sequence }>;
    dispose(): Promise<void>;
  }>;
  dispose(): Promise<void>;
}

/** llama.cpp with a model. */
export interface LlamaCpp {
  /** The instructions of the processor that its library uses. */
  readonly variant: string;
  /** Greedy decoding; one repetition is one further token, the first few after the prompt aside. */
  decoding(count: number): Side;
  /** One repetition is one prompt of so many tokens. */
  reading(length: number): Side;
  dispose(): Promise<void>;
}

/** llama.cpp on the processor with a GGUF file, in this process; or why it cannot be had. */
export async function llamaCppOn(path: string, threads: number): Promise<LlamaCpp | { readonly skipped: string }> {
  const script = (await import(pathToFileURL(join(root, "scripts", "compare", "llama-cpp.mjs")).href)) as {
    llamaCpp(): Promise<{ readonly module: unknown } | { readonly reason: string }>;
    llamaOn(module: unknown): Promise<Llama>;
  };
  const found = await script.llamaCpp();
  if ("reason" in found) return { skipped: found.reason };
  const llama = await script.llamaOn(found.module);
  const model = await llama.loadModel({ modelPath: path });
  const context = await model.createContext({ contextSize: 1024, batchSize: 512, threads });
  const sequence = context.getSequence();
  const tokens = (count: number): number[] => Array.from({ length: count }, (_, i) => (i * 37 + 10) % 40000);
  const timed = (name: string, once: () => Promise<number>, each: number): Side => ({
    name,
    async run(times) {
      let seconds = 0;
      for (let done = 0; done < times; done += each) seconds += await once();
      return (seconds * times) / (Math.ceil(times / each) * each);
    },
  });
  return {
    variant: [...llama.systemInfo.matchAll(/(\w+) = 1/g)].map(([, name]) => name).join(" "),
    decoding: (count) =>
      timed(
        "llama.cpp",
        async () => {
          const generated = sequence.evaluate(tokens(12), { temperature: 0 });
          for (let i = 0; i < 2; i++) await generated.next();
          const start = performance.now();
          for (let i = 0; i < count; i++) await generated.next();
          const seconds = (performance.now() - start) / 1000;
          await generated.return();
          await sequence.clearHistory();
          return seconds;
        },
        count,
      ),
    reading: (length) =>
      timed(
        "llama.cpp",
        async () => {
          const start = performance.now();
          const generated = sequence.evaluate(tokens(length), { temperature: 0 });
          await generated.next();
          const seconds = (performance.now() - start) / 1000;
          await generated.return();
          await sequence.clearHistory();
          return seconds;
        },
        1,
      ),
    dispose: async () => {
      await model.dispose();
      await llama.dispose();
    },
  };
}
