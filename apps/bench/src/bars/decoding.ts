import { sample, TextGenerator } from "@lowrank/models";
import { buildModel, shapes } from "../shapes.js";
import { decodingAt, promptOf } from "../steps/decode.js";
import { alternate, processorMs, quantile, speedup } from "../timing.js";
import type { Bar } from "./bar.js";

/** The small model with room for long texts. */
const long = { ...shapes.small, length: 2080 };
const vocab = 262144;
/** Logits that the device hands over for a topK of 50. */
const handedOver = 128;

export const decodingBars: readonly Bar[] = [
  {
    name: "decode, small: tokens/s at context 2048 against 64, B 1; of B 8 against B 1 at context 64",
    brief: "decode: context 2048 / 64; B 8 / 1",
    limits: [
      { atLeast: 0.58, unit: "x" },
      { atLeast: 5, unit: "x" },
    ],
    isTimed: true,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const model = buildModel(long, dev);
        const sides = [
          decodingAt(model, "context 64", 1, 64),
          decodingAt(model, "context 2048", 1, 2048),
          decodingAt(model, "context 2048, bf16 cache", 1, 2048, { cacheDType: "bf16" }),
          // A model of its own: products of eight rows keep its weights in panels, which those of one row do not read.
          decodingAt(buildModel(long, dev), "context 64, batch 8", 8, 64),
        ];
        const timings = await alternate(sides, { rounds: context.isQuick ? 3 : 9, seconds: 0.01 });
        for (const side of sides) side[Symbol.dispose]();
        const [near, far, half, eight] = timings;
        if (!near || !far || !half || !eight) throw new Error("bench: a side of decoding was not timed.");
        const rate = ({ median }: { readonly median: number }, rows = 1): string => `${(rows / median).toFixed(0)} tokens/s`;
        return {
          values: [speedup(far, near), 8 * speedup(eight, near)],
          detail: `${rate(near)} at 64, ${rate(far)} at 2048 (bf16 cache: ${rate(half)}), ${rate(eight, 8)} of 8 texts`,
        };
      }),
  },
  {
    name: "prompts, small: time a token of 1030 tokens against 1000, of 2060 against 2040; plans for further lengths",
    brief: "prompt 1030/1000, 2060/2040, plans",
    limits: [{ atMost: 1.1 }, { atMost: 1.1 }, { atMost: 0 }],
    isTimed: true,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const generator = new TextGenerator(buildModel(long, dev));
        const lengths = [1000, 1030, 2040, 2060];
        const timings = await alternate(
          lengths.map((length) => promptOf(generator, length)),
          { rounds: context.isQuick ? 2 : 5, seconds: 0.05 },
        );
        const perToken = timings.map(({ median }, i) => median / (lengths[i] ?? 1));
        await promptOf(generator, 1100).run(1);
        const before = dev.counters.plansPrepared;
        for (const length of [1017, 1045, 1099, 1250, 1666, 1999]) await promptOf(generator, length).run(1);
        const plans = dev.counters.plansPrepared - before;
        generator.dispose();
        const [a = 1, b = 1, c = 1, d = 1] = perToken;
        return { values: [b / a, d / c, plans], detail: `${(1 / a).toFixed(0)} and ${(1 / c).toFixed(0)} tokens/s` };
      }),
  },
  {
    name: "JavaScript that chooses one of 262,144 tokens: topK 50 of what the device hands over / temperature alone",
    brief: "choice of 262144: topK, all",
    limits: [
      { atMost: 2, unit: "ms" },
      { atMost: 10, unit: "ms" },
    ],
    isTimed: true,
    async measure() {
      const logits = Float32Array.from({ length: vocab }, (_, i) => 6 * Math.sin(i * 12.9898) + 3 * Math.sin(i * 78.233));
      const median = (work: (u: number) => void): number => {
        const samples = Array.from({ length: 25 }, (_, i) => processorMs(() => work(i / 25)));
        return quantile(samples, 0.5);
      };
      const few = logits.slice(0, handedOver);
      const topK = median((u) => void sample(few, { temperature: 1, topK: 50 }, () => u));
      const alone = median((u) => void sample(logits, { temperature: 1 }, () => u));
      const nucleus = median((u) => void sample(logits, { temperature: 1, topP: 0.9 }, () => u));
      return { values: [topK, alone], detail: `topP 0.9 of all: ${nucleus.toFixed(1)} ms` };
    },
  },
];
