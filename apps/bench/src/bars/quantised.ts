import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { type CausalLM, loadModel, TextGenerator } from "@lowrank/models";
import type { Tensor } from "@lowrank/tensor";
import { matrixTypes } from "../matrix-types.js";
import { pythonScript, shared } from "../repository.js";
import { buildModel, shapes } from "../shapes.js";
import { runCommand } from "../steps/command.js";
import { type LlamaCpp, llamaCppOn } from "../steps/llama-cpp.js";
import { trainStep } from "../steps/train-step.js";
import { alternate, type Side, speedup } from "../timing.js";
import type { Bar, BarContext, Outcome } from "./bar.js";

/** What llama.cpp's file holds, and the least share of its speed that is asked for: decoding, and reading a prompt of 512 tokens. */
const files = [
  { type: "Q4_1", decode: 0.5, prompt: 0.8 },
  { type: "Q8_0", decode: 0.5, prompt: 0.4 },
  { type: "Q4_0", decode: 0.3, prompt: 0.4 },
] as const;
const promptLength = 512;
const decodedTokens = 24;

interface Speeds {
  /** How many times as fast as llama.cpp. */
  readonly ratios: readonly number[];
  readonly detail: string;
}

/** Both of one file after another; or why there is none. */
function besideLlamaCpp(context: BarContext): Promise<{ readonly decode: Speeds; readonly prompt: Speeds } | { readonly skipped: string }> {
  return context.once("quantised llama.cpp", async () => {
    const source = shared("models", "smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf");
    if (!source) return { skipped: "models/smollm2-135m is not beside the clone (LOWRANK_SHARED names its folder)" };
    const requantise = pythonScript("requantise.py");
    if ("skipped" in requantise) return requantise;
    const folder = mkdtempSync(join(tmpdir(), "lowrank-quantised-"));
    try {
      const decode: Speeds[] = [];
      const prompt: Speeds[] = [];
      let machine = "";
      for (const { type } of files) {
        context.say(`SmolLM2-135M in ${type}`);
        let path = source;
        if (type !== "Q4_1") {
          path = join(folder, `${type}.gguf`);
          const [python, script] = requantise;
          await runCommand(python, [script, source, path, type]);
        }
        const theirs = await llamaCppOn(path, context.threads);
        if ("skipped" in theirs) return theirs;
        machine = theirs.variant;
        try {
          const own = await speedsOf(context, path, theirs);
          decode.push(own.decode);
          prompt.push(own.prompt);
        } finally {
          await theirs.dispose();
        }
      }
      const joined = (all: readonly Speeds[]): Speeds => ({
        ratios: all.flatMap(({ ratios }) => ratios),
        detail: `${all.map(({ detail }) => detail).join("; ")}; ${cpus()[0]?.model ?? "an unknown processor"}, llama.cpp with ${machine}`,
      });
      return { decode: joined(decode), prompt: joined(prompt) };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
}

async function speedsOf(
  context: BarContext,
  path: string,
  theirs: LlamaCpp,
): Promise<{ readonly decode: Speeds; readonly prompt: Speeds }> {
  return context.with("cpu", async (dev) => {
    const { model } = await loadModel(path, { device: dev });
    const generator = new TextGenerator(model);
    const rounds = context.isQuick ? 2 : 7;
    const rate = ({ median }: { readonly median: number }): string => (1 / median).toFixed(1);
    const [ours, others] = await alternate([decoding(generator, model), theirs.decoding(decodedTokens)], { rounds, seconds: 0.01 });
    const [read, theirRead] = await alternate([reading(generator, model), theirs.reading(promptLength)], {
      rounds: Math.ceil(rounds / 2),
      seconds: 0.01,
    });
    generator.dispose();
    if (!ours || !others || !read || !theirRead) throw new Error("bench: a side was not timed.");
    return {
      decode: { ratios: [speedup(ours, others)], detail: `${rate(ours)} against ${rate(others)} tokens/s` },
      prompt: {
        ratios: [speedup(read, theirRead)],
        detail: `${(promptLength / read.median).toFixed(0)} against ${(promptLength / theirRead.median).toFixed(0)} tokens/s`,
      },
    };
  });
}

const idsOf = (count: number, { vocabSize }: CausalLM): number[] => Array.from({ length: count }, (_, i) => (i * 37 + 10) % vocabSize);

/** One repetition is one further token, the first few after the prompt aside. */
function decoding(generator: TextGenerator, model: CausalLM): Side {
  return {
    name: "lowrank",
    async run(times) {
      let seconds = 0;
      for (let done = 0; done < times; done += decodedTokens) {
        let [count, start] = [0, 0];
        const onToken = (): void => {
          if (++count === 2) start = performance.now();
        };
        await generator.generate([idsOf(12, model)], { maxNewTokens: decodedTokens + 2, stopTokens: [], onToken });
        seconds += (performance.now() - start) / 1000;
      }
      return (seconds * times) / (Math.ceil(times / decodedTokens) * decodedTokens);
    },
  };
}

/** One repetition is one prompt, and the token after it. */
function reading(generator: TextGenerator, model: CausalLM): Side {
  return {
    name: "lowrank",
    async run(times) {
      const start = performance.now();
      for (let i = 0; i < times; i++) await generator.generate([idsOf(promptLength, model)], { maxNewTokens: 1, stopTokens: [] });
      return (performance.now() - start) / 1000;
    },
  };
}

function llamaCppBar(names: Pick<Bar, "name" | "brief">, which: "decode" | "prompt"): Bar {
  return {
    ...names,
    limits: files.map((file) => ({ atLeast: file[which], unit: "x" })),
    isTimed: true,
    async measure(context): Promise<Outcome> {
      const found = await besideLlamaCpp(context);
      return "skipped" in found ? found : { values: found[which].ratios, detail: found[which].detail };
    },
  };
}

const stepTypes = ["Q4_0", "Q8_0", "NF4"] as const;

/** Weights in blocks: what they cost beside bf16, and beside llama.cpp. */
export const quantisedBars: readonly Bar[] = [
  {
    name: "cpu LoRA step, small, its layers' matrices in Q4_0 / Q8_0 / NF4: time, bf16",
    brief: "LoRA step, small, blocks: bf16",
    limits: [1.15, 1.1, 1.2].map((atMost) => ({ atMost })),
    isTimed: true,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const shape = shapes.small;
        const steps = ["bf16", ...stepTypes].map((type) =>
          trainStep(dev, shape, "lora", "update", type, buildModel(shape, dev, matrixTypes(type, dev))),
        );
        const timings = await alternate(
          steps.map(({ side }) => side),
          { rounds: context.isQuick ? 3 : 11, seconds: 0.2 },
        );
        for (const step of steps) step.dispose();
        const [bf16, ...others] = timings;
        if (!bf16) throw new Error("bench: bf16 was not timed.");
        return { values: others.map(({ median }) => median / bf16.median), detail: `${(bf16.median * 1000).toFixed(0)} ms in bf16` };
      }),
  },
  {
    name: "frozen matrices in nested NF4 / Q4_0 / Q8_0: memory of f32's",
    brief: "frozen matrices: of f32's",
    limits: [0.135, 0.145, 0.27].map((atMost) => ({ atMost })),
    isTimed: false,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const values = ["NF4, nested", "Q4_0", "Q8_0"].map((type) => {
          const model = buildModel(shapes.small, dev, matrixTypes(type, dev));
          const matrices = [...model.namedParameters().values()].filter((weight: Tensor) => weight.packing);
          const bytes = matrices.reduce((sum, { packing }) => sum + (packing?.bytes ?? 0), 0);
          return bytes / matrices.reduce((sum, { size }) => sum + 4 * size, 0);
        });
        return { values, detail: "what the device holds of them" };
      }),
  },
  llamaCppBar(
    { name: "SmolLM2-135M in Q4_1 / Q8_0 / Q4_0: greedy decode, B 1, llama.cpp", brief: "decode Q4_1/Q8_0/Q4_0: llama.cpp" },
    "decode",
  ),
  llamaCppBar(
    { name: "SmolLM2-135M in Q4_1 / Q8_0 / Q4_0: a prompt of 512 tokens, llama.cpp", brief: "prompt Q4_1/Q8_0/Q4_0: llama.cpp" },
    "prompt",
  ),
];
