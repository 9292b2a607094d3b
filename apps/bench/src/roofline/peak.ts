import { compile, type Device, type Tensor, tensor } from "@lowrank/tensor";
import { alternate, type Side, side } from "../timing.js";
import { Crew } from "./crew.js";
import { arithmeticModule, arithmeticUnroll } from "./module.js";

/** Billion floating-point operations a second. */
export interface Peak {
  readonly gflops: number;
  /** How it was found. */
  readonly detail: string;
}

/** Independent chains that are tried: multiplier and adder answer after about four cycles, and V8 keeps some registers to itself. */
const chainCounts = [6, 8, 10, 12] as const;

/**
 * The most that 128-bit SIMD without fused multiply-add does on this machine: multiplications and additions on registers alone, on the
 * given number of threads. The best round of several numbers of chains: what disturbs a round can only slow it down.
 */
export async function wasmPeak(threads: number): Promise<Peak> {
  const sides = chainCounts.map((chains) => arithmetic(threads, chains));
  const timings = await alternate(
    sides.map(({ side: each }) => each),
    { rounds: 7, seconds: 0.05 },
  );
  await Promise.all(sides.map(({ end }) => end()));
  // A repetition is 1 GFLOP.
  const rates = timings.map(({ samples }) => 1 / Math.min(...samples));
  const best = rates.indexOf(Math.max(...rates));
  return { gflops: rates[best] ?? 0, detail: `${chainCounts[best]} chains of mul + add, ${threads} thread${threads === 1 ? "" : "s"}` };
}

interface Arithmetic {
  readonly side: Side;
  end(): Promise<void>;
}

/** 10⁹ operations a repetition, shared out to the threads. */
function arithmetic(threads: number, chains: number): Arithmetic {
  // Four lanes, a multiplication and an addition each.
  const turns = Math.round(1e9 / (threads * arithmeticUnroll * chains * 8));
  const crew = new Crew(
    arithmeticModule(chains),
    Array.from({ length: threads }, () => [turns]),
    null,
  );
  return { side: { name: "peak", run: (count) => crew.run(count) }, end: () => crew.end() };
}

/** The bare arithmetic as a side to time beside others, 10⁹ operations a repetition, with the number of chains that is fastest here. */
export async function peakSide(threads: number): Promise<Arithmetic> {
  const { detail } = await wasmPeak(threads);
  return arithmetic(threads, Number.parseInt(detail, 10));
}

const adapterElements = 2 ** 18;
const adapterDepth = 256;

/**
 * The same for a WebGPU adapter: a fused kernel of this engine in which each of 2¹⁸ elements goes through four independent chains of 256
 * multiply-adds. What a driver makes of them (fused or not) is its own affair; two operations are counted for each.
 */
export async function adapterPeak(device: Device): Promise<Peak> {
  const x = tensor(new Float32Array(adapterElements).fill(0.25), { device });
  const kernel = compile((input: Tensor) => {
    let chains = [input, input.add(0.1), input.add(0.2), input.add(0.3)];
    for (let i = 0; i < adapterDepth; i++) chains = chains.map((chain) => chain.mul(0.5).add(0.5));
    return chains.reduce((sum, chain) => sum.add(chain));
  });
  const [timing] = await alternate(
    [
      side(
        "chains",
        () => kernel(x).dispose(),
        () => device.finish(),
      ),
    ],
    { rounds: 5 },
  );
  kernel.dispose();
  const flops = adapterElements * adapterDepth * 4 * 2;
  return {
    gflops: timing ? flops / Math.min(...timing.samples) / 1e9 : 0,
    detail: "4 chains of 256 multiply-adds for each of 2^18 elements",
  };
}
