import { attentionCase } from "../families/attention.js";
import { readyCase } from "../families/measure.js";
import { alternate } from "../timing.js";
import type { Bar } from "./bar.js";

const sizes = { batch: 1, heads: 2, length: 4096, headDim: 64, isBackward: true } as const;

export const attentionBars: readonly Bar[] = [
  {
    name: "cpu attention of 4096 tokens, forward and backward, a window of 512 against all earlier keys",
    brief: "attention: window 512 of 4096",
    limits: [{ atMost: 0.35, unit: "x" }],
    isTimed: true,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const whole = await readyCase(dev, attentionCase(sizes), "causal");
        const windowed = await readyCase(dev, attentionCase({ ...sizes, window: 512 }), "window 512");
        const [causal, near] = await alternate([whole.side, windowed.side], { rounds: context.isQuick ? 3 : 9, seconds: 0.5 });
        whole.dispose();
        windowed.dispose();
        if (!causal || !near) throw new Error("No side was timed.");
        return {
          values: [near.median / causal.median],
          detail: `${(near.median * 1e3).toFixed(0)} ms against ${(causal.median * 1e3).toFixed(0)} ms`,
        };
      }),
  },
];
