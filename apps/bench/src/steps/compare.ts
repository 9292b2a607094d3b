import type { Device } from "@lowrank/tensor";
import { largest } from "@lowrank/tensor";
import { inputTensor } from "../inputs.js";
import { isSkipped, type PeerName, type Peers, type Task } from "../peers/peer.js";
import { buildModel, type ModelShape } from "../shapes.js";
import { alternate, type Side, type Timing } from "../timing.js";
import { decoder } from "./decode.js";
import { type Training, trainStep } from "./train-step.js";

/** This engine and those peers that did the same, timed in turns. */
export interface Compared {
  readonly ours: Timing;
  readonly peers: readonly Timing[];
  /** Why a peer took no part. */
  readonly missing: ReadonlyMap<PeerName, string>;
}

export interface CompareOptions {
  readonly peers: Peers;
  readonly names: readonly PeerName[];
  readonly isQuick: boolean;
}

/** Steps of peers must start with the same losses; sums are in another order there. */
const lossTolerance = 1e-3;
/** Logits this close are a tie; they are sums of hundreds of products around 1. */
const tieTolerance = 1e-4;

function agree(ours: readonly number[], theirs: readonly number[]): boolean {
  return ours.every((loss, i) => Math.abs(loss - (theirs[i] ?? Number.NaN)) <= lossTolerance * Math.abs(loss));
}

async function together(
  ours: Side,
  task: Task,
  check: (sample: readonly number[]) => Promise<string | null> | string | null,
  { peers, names, isQuick }: CompareOptions,
): Promise<Compared> {
  const sides: Side[] = [];
  const missing = new Map<PeerName, string>();
  for (const name of names) {
    const prepared = await peers.prepare(name, task);
    const problem = isSkipped(prepared) ? prepared.skipped : await check(prepared.sample);
    if (problem !== null) missing.set(name, problem);
    else if (!isSkipped(prepared)) sides.push(prepared.side);
  }
  const [timing, ...rest] = await alternate([ours, ...sides], { rounds: isQuick ? 3 : 9, seconds: 0.1 });
  if (!timing) throw new Error("No side was timed.");
  return { ours: timing, peers: rest, missing };
}

/** A training step beside peers whose first three losses are the same. */
export async function compareStep(dev: Device, shape: ModelShape, training: Training, options: CompareOptions): Promise<Compared> {
  const step = trainStep(dev, shape, training);
  const losses = [await step.loss(), await step.loss(), await step.loss()];
  const { name, layers, width, heads, vocab, batch, length, rank } = shape;
  const task = { task: training === "lora" ? "loraStep" : "fullStep", shape: name, layers, width, heads, vocab, batch, length, rank };
  try {
    return await together(
      step.side,
      task,
      (sample) => (agree(losses, sample) ? null : `its losses are ${sample.map((loss) => loss.toFixed(4)).join(", ")}`),
      options,
    );
  } finally {
    step.dispose();
  }
}

/**
 * Greedy decoding of `tokens` tokens beside peers that choose the likeliest token each time, as this engine's forward sees it. Texts cannot be
 * compared: weights by formula give many tokens the same logit, and each side takes another of them.
 */
export async function compareDecode(dev: Device, shape: ModelShape, tokens: number, options: CompareOptions): Promise<Compared> {
  const model = buildModel(shape, dev);
  const ours = decoder(model, tokens);
  const { name, layers, width, heads, vocab, length } = shape;
  const check = async (sample: readonly number[]): Promise<string | null> => {
    const ids = [...ours.prompt, ...sample];
    const logits = Array.from(await model.forward(inputTensor(dev, [1, ids.length], Int32Array.from(ids), "i32")).data(), Number);
    const isLikeliest = sample.every((token, i) => {
      const row = logits.slice((ours.prompt.length - 1 + i) * vocab, (ours.prompt.length + i) * vocab);
      return (row[token] ?? Number.NaN) >= largest(row) - tieTolerance;
    });
    return sample.length > 0 && isLikeliest ? null : "its tokens are not the likeliest";
  };
  try {
    return await together(ours.side, { task: "decode", shape: name, layers, width, heads, vocab, length, tokens }, check, options);
  } finally {
    ours.dispose();
  }
}
