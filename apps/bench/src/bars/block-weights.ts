import { compile, concat, type Device, realize, stack, type Tensor, tensor } from "@lowrank/tensor";
import { alternate, quantile, type Side, side } from "../timing.js";
import type { Bar } from "./bar.js";

/** Rows and columns of the weight, and numbers of a block that share a scale. */
const width = 2048;
const blockSize = 32;

/** (q − 8) · d of 4-bit numbers: byte j of a block holds numbers j and j + 16 (GGUF's Q4_0), or neighbours 2 j and 2 j + 1. */
function unpacked(packed: Tensor, scales: Tensor, layout: "halves" | "neighbours"): Tensor {
  const [low, high] = [packed.and(15), packed.shiftRight(4)];
  const numbers = layout === "halves" ? concat([low, high], 2) : stack([low, high], 3).reshape([width, width / blockSize, blockSize]);
  return numbers.cast("f32").sub(8).mul(scales).reshape([width, width]);
}

/** Products of some rows with the weight in bf16 and in blocks of each layout, forward and for the gradient of their input. */
async function sidesOf(dev: Device, rows: number): Promise<Record<"forward" | "back", readonly Side[]>> {
  const blocks = width / blockSize;
  const values = Float32Array.from({ length: width * width }, (_, i) => Math.sin(i * 1.3));
  const bytes = Uint8Array.from({ length: (width * width) / 2 }, (_, i) => Math.imul(i, 2654435761) >>> 24);
  const scales = tensor(
    Float32Array.from({ length: width * blocks }, (_, i) => 0.01 * Math.sin(i)),
    { shape: [width, blocks, 1], dtype: "f16", device: dev },
  );
  const packed = tensor(bytes, { shape: [width, blocks, blockSize / 2], dtype: "u8", device: dev });
  const stored = tensor(values, { shape: [width, width], dtype: "bf16", device: dev });
  const x = tensor(values.slice(0, rows * width), { shape: [rows, width], device: dev });
  await realize(packed, scales, stored, x);
  const weights: Record<string, () => Tensor> = {
    bf16: () => stored,
    halves: () => unpacked(packed, scales, "halves"),
    neighbours: () => unpacked(packed, scales, "neighbours"),
  };
  const made = (multiply: (x: Tensor, weight: Tensor) => Tensor): Side[] =>
    Object.entries(weights).map(([name, weight]) => {
      const run = compile((input: Tensor) => multiply(input, weight()));
      return side(
        name,
        async () => {
          const result = run(x);
          await realize(result);
          result.dispose();
        },
        () => dev.finish(),
      );
    });
  return { forward: made((input, weight) => input.matmul(weight.transpose())), back: made((input, weight) => input.matmul(weight)) };
}

/** How many times the time of the first side each of the others takes, round by round. */
async function ratios(sides: readonly Side[], rounds: number): Promise<number[]> {
  const [first, ...others] = await alternate(sides, { rounds, seconds: 0.05 });
  return others.map(({ samples }) =>
    quantile(
      samples.map((sample, round) => sample / (first?.samples[round] ?? Number.NaN)),
      0.5,
    ),
  );
}

function bar(rows: number, limits: readonly [halves: number, neighbours: number]): Bar {
  return {
    name: `cpu, ${rows === 1 ? "one row" : `${rows} rows`} times a 4-bit weight 2048², bf16: halves / neighbours, forward and back`,
    brief: `4-bit, ${rows === 1 ? "one row" : `${rows} rows`}: bf16`,
    limits: [...limits, ...limits].map((atMost) => ({ atMost })),
    isTimed: true,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const { forward, back } = await sidesOf(dev, rows);
        const rounds = context.isQuick ? 3 : rows === 1 ? 51 : 15;
        const values = [...(await ratios(forward, rounds)), ...(await ratios(back, rounds))];
        return { values, detail: "medians of ratios within a round" };
      }),
  };
}

/** What a weight in blocks of 32 with a scale each costs beside one in bf16, whose bytes are 3.6 times as many. */
export const blockWeightBars: readonly Bar[] = [bar(1, [1.3, 1.6]), bar(256, [1.25, 1.25])];
