import { type DeviceOptions, device } from "@lowrank/tensor";
import { type ModelShape, shapes } from "../shapes.js";
import { alternate } from "../timing.js";
import { type Training, trainStep } from "./train-step.js";

/** One size of a sweep, and what a step of it takes. */
export interface ScaleRow {
  readonly sweep: string;
  readonly value: number;
  readonly training: Training;
  /** Seconds, the median of the rounds. */
  readonly seconds: number;
  /** The device's largest memory so far, in bytes: weights, state and the step. */
  readonly peakBytes: number;
}

/** A series of shapes in which one thing grows. */
interface Sweep {
  readonly name: string;
  readonly values: readonly number[];
  readonly shape: (value: number) => ModelShape;
  readonly options?: (value: number) => DeviceOptions;
}

const { tiny, small } = shapes;
/** 124 million parameters (Radford et al. 2019). */
const gpt2Small: ModelShape = { name: "gpt2", layers: 12, width: 768, heads: 12, vocab: 50257, batch: 1, length: 512, rank: 8 };

const sweeps: readonly Sweep[] = [
  { name: "tokens a row", values: [256, 512, 1024, 2048, 4096, 8192], shape: (length) => ({ ...tiny, batch: 1, length }) },
  { name: "rank", values: [1, 4, 16, 64, 256], shape: (rank) => ({ ...tiny, width: 256, rank }) },
  { name: "width", values: [64, 128, 256, 512, 1024], shape: (width) => ({ ...tiny, width, heads: width / 32 }) },
  { name: "layers", values: [1, 2, 4, 8, 16, 32], shape: (layers) => ({ ...tiny, layers }) },
  { name: "vocabulary", values: [512, 4096, 32768, 131072], shape: (vocab) => ({ ...tiny, vocab }) },
  { name: "GPT-2, tokens", values: [512], shape: (length) => ({ ...gpt2Small, length }) },
  { name: "threads", values: [1, 2, 4, 8, 16], shape: () => small, options: (threads) => ({ threads }) },
  // Beside the step itself, the weights of `small` take 56 MB.
  { name: "MB at most", values: [210, 180, 150, 130, 110], shape: () => small, options: (value) => ({ budgetBytes: value * 1e6 }) },
];

/** More threads than cores are not worth a row. */
function isWorth(sweep: Sweep, value: number, cores: number): boolean {
  return (sweep.options?.(value).threads ?? 1) <= cores;
}

/** Measures LoRA steps on the cpu as one thing grows, each on a device of its own; `onRow` hears of every row as it is done. */
export async function measureScale(
  cores: number,
  { isQuick, only }: { readonly isQuick: boolean; readonly only: string | undefined },
  onRow: (row: ScaleRow) => void,
): Promise<ScaleRow[]> {
  const rows: ScaleRow[] = [];
  for (const sweep of sweeps) {
    if (only !== undefined && !sweep.name.includes(only)) continue;
    for (const value of isQuick ? sweep.values.slice(0, 2) : sweep.values) {
      if (!isWorth(sweep, value, cores)) continue;
      const dev = await device("cpu", sweep.options?.(value) ?? {});
      try {
        const step = trainStep(dev, sweep.shape(value), "lora");
        const [timing] = await alternate([step.side], { rounds: isQuick ? 1 : 5, seconds: 0.3, maxCount: 20 });
        const row: ScaleRow = {
          sweep: sweep.name,
          value,
          training: "lora",
          seconds: timing?.median ?? Number.NaN,
          peakBytes: dev.counters.peakBytes,
        };
        rows.push(row);
        onRow(row);
        step.dispose();
      } finally {
        dev.dispose();
      }
    }
  }
  return rows;
}
