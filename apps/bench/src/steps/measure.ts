import type { Device } from "@lowrank/tensor";
import { type CaseResult, caseResult } from "../families/measure.js";
import type { PeerName, Peers } from "../peers/peer.js";
import type { Roofline } from "../roofline/index.js";
import { type ModelShape, shapes, stepFlops } from "../shapes.js";
import { type Compared, compareDecode, compareStep } from "./compare.js";
import { minimumBytes } from "./traffic.js";
import { stepPlan, type Training } from "./train-step.js";

/** Whole steps and generation, under the name of a family. */
export const stepsFamily = { name: "steps", sizeLabel: "FLOP" } as const;

/** Tokens of a generated text. */
const tokenCount = 64;

/** Something whole that is measured. */
export interface WholeCase {
  readonly name: string;
  measure(
    device: Device,
    context: { readonly peers: Peers; readonly peerNames: readonly PeerName[]; readonly roofline: Roofline; readonly isQuick: boolean },
  ): Promise<CaseResult>;
}

function stepCase(shape: ModelShape, training: Training): WholeCase {
  const name = `${training === "lora" ? "LoRA" : "full"} step, ${shape.name}`;
  return {
    name,
    async measure(device, { peers, peerNames, roofline, isQuick }) {
      const { targets } = await stepPlan(device, shape, training);
      const flops = stepFlops(shape, training);
      const facts = { name, curve: training, size: flops, flops, bytes: minimumBytes(targets) };
      return result(facts, await compareStep(device, shape, training, { peers, names: peerNames, isQuick }), roofline);
    },
  };
}

/** A text of 64 tokens: each token reads every weight once and takes two operations for each. */
function decodeCase(shape: ModelShape): WholeCase {
  const name = `decode ${tokenCount} tokens, ${shape.name}`;
  return {
    name,
    async measure(device, { peers, peerNames, roofline, isQuick }) {
      const weights = shape.layers * 12 * shape.width ** 2 + shape.vocab * shape.width;
      const facts = {
        name,
        curve: "decode",
        size: 2 * weights * tokenCount,
        flops: 2 * weights * tokenCount,
        bytes: 4 * weights * tokenCount,
      };
      return result(facts, await compareDecode(device, shape, tokenCount, { peers, names: peerNames, isQuick }), roofline);
    },
  };
}

function result(facts: Parameters<typeof caseResult>[1], { ours, peers, missing }: Compared, roofline: Roofline): CaseResult {
  const skipped = Object.fromEntries([...missing].map(([peer, reason]) => [peer, { skipped: reason }]));
  // Losses and texts are compared with the peers'; there is no float64 reference of a whole step.
  return caseResult(stepsFamily.name, facts, ours, peers, skipped, 0, roofline);
}

/** All whole cases, or the smallest. */
export function wholeCases(isQuick: boolean): WholeCase[] {
  const quick: ModelShape = { ...shapes.tiny, name: "quick", layers: 2, batch: 2, length: 96 };
  if (isQuick) return [stepCase(quick, "lora"), decodeCase(quick)];
  return [
    stepCase(shapes.tiny, "lora"),
    stepCase(shapes.tiny, "full"),
    stepCase(shapes.small, "lora"),
    stepCase(shapes.small, "full"),
    decodeCase(shapes.tiny),
    decodeCase(shapes.small),
  ];
}
