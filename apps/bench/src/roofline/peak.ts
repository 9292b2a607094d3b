import { compile, type Device, smallest, type Tensor, tensor } from "@lowrank/tensor";
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

/** A way of doing bare arithmetic, and how fast it was. */
interface Way {
  readonly chains: number;
  readonly isFused: boolean;
  readonly gflops: number;
}

/** The fastest of several numbers of chains. The best round of each: what disturbs a round can only slow it down. */
async function fastest(threads: number, fusions: readonly boolean[]): Promise<Way> {
  const ways = fusions.flatMap((isFused) => chainCounts.map((chains) => ({ chains, isFused })));
  const sides = ways.map(({ chains, isFused }) => arithmetic(threads, chains, isFused));
  const timings = await alternate(
    sides.map(({ side: each }) => each),
    { rounds: 7, seconds: 0.05 },
  );
  await Promise.all(sides.map(({ end }) => end()));
  // A repetition is 1 GFLOP.
  const measured = ways.map((way, i) => ({ ...way, gflops: 1 / smallest(timings[i]?.samples ?? []) }));
  return measured.reduce((best, way) => (way.gflops > best.gflops ? way : best));
}

/**
 * The most that 128-bit SIMD does on this machine on registers alone, on the given number of threads: multiplications and additions, or
 * both in one instruction where the runtime compiles it, which it does once a cpu device is open.
 */
export async function wasmPeak(threads: number): Promise<Peak> {
  const canFuse = WebAssembly.validate(arithmeticModule(chainCounts[0], true));
  const { chains, isFused, gflops } = await fastest(threads, canFuse ? [false, true] : [false]);
  return { gflops, detail: `${chains} chains of ${isFused ? "multiply-add" : "mul + add"}, ${threads} thread${threads === 1 ? "" : "s"}` };
}

interface Arithmetic {
  readonly side: Side;
  end(): Promise<void>;
}

/** 10⁹ operations a repetition, shared out to the threads. */
function arithmetic(threads: number, chains: number, isFused: boolean): Arithmetic {
  // Four lanes, a multiplication and an addition each.
  const turns = Math.round(1e9 / (threads * arithmeticUnroll * chains * 8));
  const crew = new Crew(
    arithmeticModule(chains, isFused),
    Array.from({ length: threads }, () => [turns]),
    null,
  );
  return { side: { name: "peak", run: (count) => crew.run(count) }, end: () => crew.end() };
}

/** Multiplications and additions as a side to time beside others, 10⁹ operations a repetition, with the number of chains that is fastest here. */
export async function peakSide(threads: number): Promise<Arithmetic> {
  const { chains } = await fastest(threads, [false]);
  return arithmetic(threads, chains, false);
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
    gflops: timing ? flops / smallest(timing.samples) / 1e9 : 0,
    detail: "4 chains of 256 multiply-adds for each of 2^18 elements",
  };
}
