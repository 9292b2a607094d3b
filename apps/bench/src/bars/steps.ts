import type { PeerName } from "../peers/peer.js";
import { type ModelShape, shapes, stepFlops } from "../shapes.js";
import { type Compared, compareStep } from "../steps/compare.js";
import { peakOfStep, type Training, trainStep } from "../steps/train-step.js";
import { alternate, speedup, type Timing } from "../timing.js";
import type { Bar, BarContext, Outcome } from "./bar.js";

/** A step beside all peers that some bar asks for, measured once. */
function compared(
  context: BarContext,
  on: "cpu" | "webgpu",
  shape: ModelShape,
  training: Training,
  names: readonly PeerName[],
): Promise<Compared> {
  return context.once(`step ${on} ${shape.name} ${training}`, () =>
    context.with(on, (dev) => compareStep(dev, shape, training, { peers: context.peers, names, isQuick: context.isQuick })),
  );
}

async function against(
  context: BarContext,
  on: "cpu" | "webgpu",
  shape: ModelShape,
  training: Training,
  { all, names }: { readonly all: readonly PeerName[]; readonly names: readonly PeerName[] },
): Promise<Outcome> {
  const { ours, peers, missing } = await compared(context, on, shape, training, all);
  const rate = (stepFlops(shape, training) / ours.median / 1e9).toFixed(1);
  return outcomeOf(ours, peers, missing, names, ({ median }) => `${(median * 1000).toFixed(1)} ms`, `, ${rate} GFLOP/s`);
}

/** How much faster than the fastest of some peers; skipped when none of them was timed. */
export function outcomeOf(
  ours: Timing,
  peers: readonly Timing[],
  missing: ReadonlyMap<PeerName, string>,
  names: readonly PeerName[],
  show: (timing: Timing) => string,
  more = "",
): Outcome {
  const [rival] = peers.filter(({ name }) => (names as readonly string[]).includes(name)).sort((a, b) => a.median - b.median);
  const reasons = names.flatMap((name) => (missing.has(name) ? [`${name}: ${missing.get(name)}`] : []));
  if (!rival) return { skipped: `${reasons.join("; ") || "no peer is there"} (ours: ${show(ours)}${more})` };
  const detail = `${show(ours)}${more} against ${rival.name} ${show(rival)}`;
  return { values: [speedup(ours, rival)], detail: [detail, ...reasons.map((line) => `without ${line}`)].join("; ") };
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
