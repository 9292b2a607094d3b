import { isSkipped, type PeerName, type Task } from "../peers/peer.js";
import { type ModelShape, shapes, stepFlops } from "../shapes.js";
import { peakOfStep, type Training, trainStep } from "../steps/train-step.js";
import { alternate, type Side, speedup, type Timing } from "../timing.js";
import type { Bar, BarContext, Outcome } from "./bar.js";

/** Steps of peers must start with the same losses; sums are in another order there. */
const lossTolerance = 1e-3;

interface Compared {
  readonly ours: Timing;
  readonly peers: readonly Timing[];
  readonly missing: readonly string[];
}

function taskOf(shape: ModelShape, training: Training): Task {
  const { name, layers, width, heads, vocab, batch, length, rank } = shape;
  return { task: training === "lora" ? "loraStep" : "fullStep", shape: name, layers, width, heads, vocab, batch, length, rank };
}

function compare(
  context: BarContext,
  on: "cpu" | "webgpu",
  shape: ModelShape,
  training: Training,
  peers: readonly PeerName[],
): Promise<Compared> {
  return context.once(`step ${on} ${shape.name} ${training}`, () =>
    context.with(on, async (dev) => {
      const step = trainStep(dev, shape, training);
      const losses = [await step.loss(), await step.loss(), await step.loss()];
      const sides: Side[] = [];
      const missing: string[] = [];
      for (const peer of peers) {
        const prepared = await context.peers.prepare(peer, taskOf(shape, training));
        if (isSkipped(prepared)) missing.push(`${peer}: ${prepared.skipped}`);
        else if (!agree(losses, prepared.sample))
          missing.push(`${peer}: its losses are ${prepared.sample.join(", ")}, ours ${losses.join(", ")}`);
        else sides.push(prepared.side);
      }
      const [ours, ...rest] = await alternate([step.side, ...sides], { rounds: context.isQuick ? 3 : 9, seconds: 0.1 });
      step.dispose();
      if (!ours) throw new Error("No side was timed.");
      return { ours, peers: rest, missing };
    }),
  );
}

function agree(ours: readonly number[], theirs: readonly number[]): boolean {
  return ours.every((loss, i) => Math.abs(loss - (theirs[i] ?? Number.NaN)) <= lossTolerance * Math.abs(loss));
}

async function against(
  context: BarContext,
  on: "cpu" | "webgpu",
  shape: ModelShape,
  training: Training,
  { all, names }: { readonly all: readonly PeerName[]; readonly names: readonly PeerName[] },
): Promise<Outcome> {
  const compared = await compare(context, on, shape, training, all);
  const ms = ({ median }: Timing): string => `${(median * 1000).toFixed(1)} ms`;
  const rate = (stepFlops(shape, training) / compared.ours.median / 1e9).toFixed(1);
  const rivals = compared.peers.filter(({ name }) => (names as readonly string[]).includes(name));
  const rival = rivals.sort((a, b) => a.median - b.median)[0];
  if (!rival) {
    const reasons = compared.missing.filter((line) => names.some((name) => line.startsWith(name)));
    return { skipped: `${reasons.join("; ") || "no peer is there"} (ours: ${ms(compared.ours)}, ${rate} GFLOP/s)` };
  }
  return { values: [speedup(compared.ours, rival)], detail: `${ms(compared.ours)} (${rate} GFLOP/s) against ${rival.name} ${ms(rival)}` };
}

const cpuPeers: readonly PeerName[] = ["tfjs-wasm", "jax-wasm", "pytorch"];
const wasmPeers: readonly PeerName[] = ["tfjs-wasm", "jax-wasm"];
const webgpuPeers: readonly PeerName[] = ["tfjs-webgpu", "jax-webgpu"];

function pytorchBar(name: string, brief: string, shape: ModelShape, training: Training, atLeast: number): Bar {
  // The wasm peers' steps are compared at `tiny` LoRA only; elsewhere they would take minutes.
  const all = shape.name === "tiny" && training === "lora" ? cpuPeers : (["pytorch"] as const);
  return {
    name,
    brief,
    limits: [{ atLeast, unit: "x" }],
    isTimed: true,
    measure: (context) => against(context, "cpu", shape, training, { all, names: ["pytorch"] }),
  };
}

export const stepBars: readonly Bar[] = [
  pytorchBar("cpu LoRA step, tiny, PyTorch", "LoRA step, tiny: PyTorch", shapes.tiny, "lora", 0.6),
  pytorchBar("cpu LoRA step, small, PyTorch", "LoRA step, small: PyTorch", shapes.small, "lora", 0.3),
  pytorchBar("cpu full step, tiny, PyTorch", "full step, tiny: PyTorch", shapes.tiny, "full", 0.55),
  {
    name: "cpu LoRA step, tiny, tfjs-wasm or jax-js-wasm",
    brief: "LoRA step, tiny: best JS peer",
    limits: [{ atLeast: 3, unit: "x" }],
    isTimed: true,
    measure: (context) => against(context, "cpu", shapes.tiny, "lora", { all: cpuPeers, names: wasmPeers }),
  },
];

export const webgpuStepBars: readonly Bar[] = [
  {
    name: "webgpu (lavapipe) LoRA step, tiny, fastest JavaScript peer",
    brief: "webgpu LoRA step, tiny: JS peers",
    limits: [{ atLeast: 3, unit: "x" }],
    isTimed: true,
    async measure(context) {
      const absent = await context.lavapipe();
      if (absent) return { skipped: absent };
      return against(context, "webgpu", shapes.tiny, "lora", { all: webgpuPeers, names: webgpuPeers });
    },
  },
];

export const savingBars: readonly Bar[] = [
  {
    name: "LoRA step against full step, small: time / peak memory / optimizer",
    brief: "LoRA / full: time, memory, state",
    limits: [{ atMost: 0.75 }, { atMost: 0.55 }, { atMost: 0.01 }],
    isTimed: true,
    measure: (context) =>
      context.with("cpu", (loraDevice) =>
        context.with("cpu", async (fullDevice) => {
          const lora = trainStep(loraDevice, shapes.small, "lora", "update", "lora");
          const full = trainStep(fullDevice, shapes.small, "full", "update", "full");
          const [fast, slow] = await alternate([lora.side, full.side], { rounds: context.isQuick ? 3 : 7, seconds: 0.1 });
          const [loraPeak, fullPeak] = [await peakOfStep(lora), await peakOfStep(full)];
          if (!fast || !slow) throw new Error("No side was timed.");
          const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;
          return {
            values: [fast.median / slow.median, loraPeak / fullPeak, lora.optimizerBytes / full.optimizerBytes],
            detail: `${(fast.median * 1000).toFixed(0)} of ${(slow.median * 1000).toFixed(0)} ms, ${mb(loraPeak)} of ${mb(fullPeak)}, ${(lora.optimizerBytes / 1e6).toFixed(2)} of ${(full.optimizerBytes / 1e6).toFixed(1)} MB`,
          };
        }),
      ),
  },
];
