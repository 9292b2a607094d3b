import { merge } from "@lowrank/lora";
import { isSkipped } from "../peers/peer.js";
import { adapt, buildModel, shapes } from "../shapes.js";
import { decoder } from "../steps/decode.js";
import { observe } from "../steps/observe.js";
import { alternate, speedup } from "../timing.js";
import type { Bar } from "./bar.js";

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
        const { layers, width, heads, vocab, length } = shapes.small;
        const ours = decoder(buildModel(shapes.small, dev), tokenCount);
        const prepared = await context.peers.prepare("pytorch", {
          task: "decode",
          shape: "small",
          layers,
          width,
          heads,
          vocab,
          length,
          tokens: tokenCount,
        });
        const sides = isSkipped(prepared) ? [ours.side] : [ours.side, prepared.side];
        const [mine, theirs] = await alternate(sides, { rounds: context.isQuick ? 3 : 7, seconds: 0.2 });
        ours.dispose();
        if (!mine) throw new Error("No side was timed.");
        const rate = ({ median }: { median: number }): string => `${(tokenCount / median).toFixed(0)} tokens/s`;
        if (!theirs) return { skipped: `${isSkipped(prepared) ? prepared.skipped : ""} (ours: ${rate(mine)})` };
        return { values: [speedup(mine, theirs)], detail: `${rate(mine)} against ${rate(theirs)}` };
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

        const model = buildModel(shapes.small, dev);
        merge(adapt(model, shapes.small));
        const merged = decoder(model, tokenCount, "merged");
        seen.plans.length = 0;
        await merged.tokens();
        seen.end();
        const added = seen.plans.flatMap(({ names }) => names).filter((name) => !baseNames.has(name)).length;
        const mergedCount = await counted(() => merged.tokens());
        const [first, second] = await alternate([base.side, merged.side], { rounds: context.isQuick ? 5 : 15, seconds: 0.2 });
        for (const each of [base, merged]) each.dispose();
        if (!first || !second) throw new Error("No side was timed.");
        return {
          values: [added, mergedCount / baseCount, second.median / first.median],
          detail: `${mergedCount} kernels for ${tokenCount} tokens, ${(tokenCount / second.median).toFixed(0)} tokens/s`,
        };
      }),
  },
];
