import { merge } from "@lowrank/lora";
import type { Gpt2 } from "@lowrank/models";
import { adapt, buildModel, shapes } from "../shapes.js";
import { compareDecode } from "../steps/compare.js";
import { decoder } from "../steps/decode.js";
import { observe } from "../steps/observe.js";
import { alternate, quantile } from "../timing.js";
import type { Bar } from "./bar.js";
import { outcomeOf } from "./steps.js";

/** Tokens of a text. */
const tokenCount = 64;

export const generationBars: readonly Bar[] = [
  {
    name: "greedy decode with cache, small, B 1, PyTorch + transformers",
    brief: "decode, small: PyTorch",
    limits: [{ atLeast: 1.5, unit: "x" }],
    isTimed: true,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const { ours, peers, missing } = await compareDecode(dev, shapes.small, tokenCount, {
          peers: context.peers,
          names: ["pytorch"],
          isQuick: context.isQuick,
        });
        return outcomeOf(ours, peers, missing, ["pytorch"], ({ median }) => `${(tokenCount / median).toFixed(0)} tokens/s`);
      }),
  },
  {
    name: "merged decode against base decode, small: new kernels / count / time",
    brief: "merged / base: new, count, time",
    limits: [{ atMost: 0 }, { near: 1, within: 0 }, { near: 1, within: 0.03 }],
    isTimed: true,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const base = decoder(buildModel(shapes.small, dev), tokenCount, "base");
        const seen = observe(dev);
        await base.tokens();
        const baseNames = new Set(seen.plans.flatMap(({ names }) => names));
        const counted = async (work: () => Promise<unknown>): Promise<number> => {
          const before = dev.counters.kernelsRun;
          await work();
          return dev.counters.kernelsRun - before;
        };
        const baseCount = await counted(() => base.tokens());

        const mergedModel = (): Gpt2 => {
          const model = buildModel(shapes.small, dev);
          merge(adapt(model, shapes.small));
          return model;
        };
        const merged = decoder(mergedModel(), tokenCount, "merged");
        seen.plans.length = 0;
        await merged.tokens();
        seen.end();
        const added = seen.plans.flatMap(({ names }) => names).filter((name) => !baseNames.has(name)).length;
        const mergedCount = await counted(() => merged.tokens());
        // Of two models that are the same, the one built later and timed second decodes 1 to 4 percent faster: each comes first and second once.
        const again = [decoder(mergedModel(), tokenCount, "merged"), decoder(buildModel(shapes.small, dev), tokenCount, "base")];
        const decoders = [base, merged, ...again];
        const timings = await alternate(
          decoders.map(({ side }) => side),
          { rounds: context.isQuick ? 3 : 9, seconds: 0.2 },
        );
        for (const each of decoders) each.dispose();
        const medianOf = (name: string): number => {
          const samples = timings.filter((timing) => timing.name === name).flatMap((timing) => timing.samples);
          return quantile(samples, 0.5);
        };
        const [first, second] = [medianOf("base"), medianOf("merged")];
        return {
          values: [added, mergedCount / baseCount, second / first],
          detail: `${mergedCount} kernels for ${tokenCount} tokens, ${(tokenCount / second).toFixed(0)} tokens/s`,
        };
      }),
  },
];
