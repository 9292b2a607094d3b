import { matmulCase } from "../families/matmul.js";
import { largestError, readyCase } from "../families/measure.js";
import { isSkipped, type PeerName } from "../peers/peer.js";
import { peakSide, wasmPeak } from "../roofline/peak.js";
import { alternate, type Side, speedup, type Timing } from "../timing.js";
import type { Bar, BarContext, Outcome } from "./bar.js";

/** Shapes that the bars are about, with the words that name them. */
const products = {
  square: matmulCase({ m: 1024, n: 1024, k: 1024, curve: "bar" }),
  fused: matmulCase({ m: 1024, n: 2304, k: 768, curve: "bar" }),
} as const;

const wasmPeers: readonly PeerName[] = ["tfjs-wasm", "jax-wasm", "onnx-wasm"];
const webgpuPeers: readonly PeerName[] = ["tfjs-webgpu", "jax-webgpu"];

/** Those on the cpu take a minute: spells in which a shared machine is slower, and not all sides alike, last up to half of one. */
const rounds = { cpu: 75, webgpu: 9 } as const;

interface Compared {
  readonly ours: Timing;
  readonly peak: Timing | null;
  readonly peers: readonly Timing[];
  /** Why peers are missing. */
  readonly missing: readonly string[];
}

/** This engine, its peers and, on the cpu, the bare arithmetic, in turns. */
function compare(context: BarContext, on: "cpu" | "webgpu", name: keyof typeof products): Promise<Compared> {
  return context.once(`matmul ${on} ${name}`, () =>
    context.with(on, async (dev) => {
      const item = products[name];
      const ready = await readyCase(dev, item);
      const missing: string[] = [];
      const sides: Side[] = [];
      for (const peer of on === "cpu" ? [...wasmPeers, "pytorch" as const] : webgpuPeers) {
        const prepared = await context.peers.prepare(peer, item.task ?? { task: "matmul" });
        if (isSkipped(prepared)) missing.push(`${peer}: ${prepared.skipped}`);
        else if (largestError(prepared.sample, ready.expected) > 1e-3) missing.push(`${peer}: its product is wrong`);
        else sides.push(prepared.side);
      }
      const bare = on === "cpu" ? await peakSide(context.threads) : null;
      const timings = await alternate([ready.side, ...(bare ? [bare.side] : []), ...sides], {
        rounds: context.isQuick ? 3 : rounds[on],
        seconds: 0.1,
      });
      ready.dispose();
      await bare?.end();
      const [ours, ...rest] = timings;
      if (!ours) throw new Error("No side was timed.");
      return { ours, peak: bare ? (rest.shift() ?? null) : null, peers: rest, missing };
    }),
  );
}

/** The fastest of some peers; null where none was timed. */
function fastest({ peers }: Compared, names: readonly PeerName[]): Timing | null {
  const timed = peers.filter(({ name }) => (names as readonly string[]).includes(name));
  return timed.reduce<Timing | null>((best, timing) => (best === null || timing.median < best.median ? timing : best), null);
}

async function against(
  context: BarContext,
  on: "cpu" | "webgpu",
  which: readonly (keyof typeof products)[],
  names: readonly PeerName[],
): Promise<Outcome> {
  const values: number[] = [];
  const details: string[] = [];
  const absent = new Set<string>();
  for (const name of which) {
    const compared = await compare(context, on, name);
    const rival = fastest(compared, names);
    if (!rival) {
      const reasons = compared.missing.filter((line) => names.some((peer) => line.startsWith(peer))).join("; ");
      return { skipped: `${reasons || "no peer is there"} (ours: ${rate(compared.ours, products[name].flops)})` };
    }
    values.push(speedup(compared.ours, rival));
    details.push(`${rate(compared.ours, products[name].flops)} against ${rival.name} ${rate(rival, products[name].flops)}`);
    for (const line of compared.missing) if (names.some((peer) => line.startsWith(peer))) absent.add(line);
  }
  return { values, detail: [...details, ...[...absent].map((line) => `without ${line}`)].join("; ") };
}

function rate({ median }: Timing, flops: number): string {
  return `${(flops / median / 1e9).toFixed(1)} GFLOP/s`;
}

export const matmulBars: readonly Bar[] = [
  {
    name: "cpu matmul 1024³ and 1024x768x2304, best JavaScript peer",
    brief: "matmul, two shapes: best JS peer",
    limits: [
      { atLeast: 1.7, unit: "x" },
      { atLeast: 1.7, unit: "x" },
    ],
    isTimed: true,
    measure: (context) => against(context, "cpu", ["square", "fused"], wasmPeers),
  },
  {
    name: "cpu matmul, the same two, PyTorch",
    brief: "matmul, two shapes: PyTorch",
    limits: [
      { atLeast: 0.3, unit: "x" },
      { atLeast: 0.3, unit: "x" },
    ],
    isTimed: true,
    measure: (context) => against(context, "cpu", ["square", "fused"], ["pytorch"]),
  },
  {
    name: "cpu matmul 1024³, share of the WASM SIMD peak",
    brief: "matmul 1024³: share of SIMD peak",
    limits: [{ atLeast: 0.6 }],
    isTimed: true,
    async measure(context) {
      const { ours, peak } = await compare(context, "cpu", "square");
      if (!peak) return { skipped: "the peak was not measured" };
      // The peak's side does 1 GFLOP a repetition.
      const [mine, most] = [products.square.flops / ours.median / 1e9, 1 / peak.median];
      const { gflops, detail } = await wasmPeak(context.threads);
      return {
        values: [mine / most],
        detail: `${mine.toFixed(1)} of ${most.toFixed(1)} GFLOP/s on ${context.threads} threads; at most ${gflops.toFixed(1)}, ${detail}`,
      };
    },
  },
];

export const webgpuMatmulBars: readonly Bar[] = [
  {
    name: "webgpu (lavapipe) matmul 1024³, fastest JavaScript peer",
    brief: "webgpu matmul 1024³: JS peers",
    limits: [{ atLeast: 2.5, unit: "x" }],
    isTimed: true,
    async measure(context) {
      const absent = await context.lavapipe();
      return absent ? { skipped: absent } : against(context, "webgpu", ["square"], webgpuPeers);
    },
  },
];
