import { svd, svdOfEnergy } from "@lowrank/lora";
import { pythonScript } from "../repository.js";
import { runCommand } from "../steps/command.js";
import { processorMs, quantile } from "../timing.js";
import type { Bar } from "./bar.js";

/** The matrices of a layer of SmolLM2-135M, and how many there are of each shape. */
const shapes = [
  { rows: 576, columns: 576, count: 2 },
  { rows: 192, columns: 576, count: 2 },
  { rows: 1536, columns: 576, count: 2 },
  { rows: 576, columns: 1536, count: 1 },
] as const;

/** Processor seconds for `work`: the median of some, after one that warms up. */
function seconds(work: () => void, rounds: number): number {
  work();
  return quantile(
    Array.from({ length: rounds }, () => processorMs(work) / 1000),
    0.5,
  );
}

/** Numbers in (−1, 1), which have no directions that stand out, as bfloat16's rounding has none. */
function noise(count: number): Float32Array {
  let state = 1;
  return Float32Array.from({ length: count }, () => {
    // xorshift32 (Marsaglia 2003).
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  });
}

export const decompositionBars: readonly Bar[] = [
  {
    name: "decompositions of a layer of SmolLM2-135M, 0.95 of the energy / rank 16: processor time of one thread, torch.linalg.svd in f32",
    brief: "SVD, 0.95 of energy/rank 16: torch",
    limits: [
      { atMost: 4, unit: "x" },
      { atMost: 4, unit: "x" },
    ],
    isTimed: true,
    async measure({ isQuick }) {
      const script = pythonScript("svd.py");
      if ("skipped" in script) return script;
      const rounds = isQuick ? 1 : 3;
      const totals = { energy: 0, rank: 0, torch: 0 };
      for (const { rows, columns, count } of shapes) {
        // By turns, shape by shape, so that what slows the machine down slows both.
        const { output } = await runCommand(script[0], [script[1], `${rows}x${columns}`]);
        const [theirs = Number.NaN] = JSON.parse(output) as number[];
        const matrix = noise(rows * columns);
        totals.energy += count * seconds(() => svdOfEnergy(matrix, rows, columns, 0.95), rounds);
        totals.rank += count * seconds(() => svd(matrix, rows, columns, 16), rounds);
        totals.torch += count * theirs;
      }
      const { energy, rank, torch } = totals;
      return {
        values: [energy / torch, rank / torch],
        detail: `${energy.toFixed(2)} and ${rank.toFixed(2)} s a layer against ${torch.toFixed(2)}`,
      };
    },
  },
];
