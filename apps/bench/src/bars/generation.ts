import { merge } from "@lowrank/lora";
import type { CausalLM } from "@lowrank/models";
import { adapt, buildModel, shapes } from "../shapes.js";
import { compareDecode } from "../steps/compare.js";
import { type Decoder, decoder } from "../steps/decode.js";
import { observe } from "../steps/observe.js";
import { alternate, quantile } from "../timing.js";
import type { Bar } from "./bar.js";
import { outcomeOf } from "./steps.js";

/** Tokens of a text. */
const tokenCount = 64;
/** Models of each kind that merged decoding is timed with. */
const placements = 4;

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

        const mergedModel = (): CausalLM => {
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
        // Of eight equal models the first built decodes 1 to 4 percent slower than most. Several of each kind are timed, built in turns after
        // the two above.
        const timed: Decoder[] = [];
        for (let i = 0; i < placements; i++) {
          const pair = [decoder(buildModel(shapes.small, dev), tokenCount, "base"), decoder(mergedModel(), tokenCount, "merged")];
          timed.push(...(i % 2 === 0 ? pair : pair.reverse()));
        }
        const timings = await alternate(
          timed.map(({ side }) => side),
          { rounds: context.isQuick ? 3 : 15, seconds: 0.15 },
        );
        for (const each of [base, merged, ...timed]) each.dispose();
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
