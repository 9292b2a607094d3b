import { argmax, concat, oneHot, type Tensor } from "@lowrank/tensor";

/** How a router turns its logits into the experts of each token and their weights. */
export interface RoutingOptions {
  /** Experts per token. */
  readonly choices: number;
  /** "softmax" over all experts, "sigmoid" of each (DeepSeek-V3), or "softmaxOfChosen": over the logits of the chosen ones (gpt-oss). */
  readonly kind: "softmax" | "sigmoid" | "softmaxOfChosen";
  /** Whether the weights of the chosen are divided by their sum. */
  readonly isNormalized: boolean;
  /** Added to the sum before the division. */
  readonly epsilon?: number;
  /** What the weights are multiplied by. */
  readonly scale?: number;
  /** Experts in so many groups, of which only the best `chosen` count: by the sum of their two best experts. */
  readonly groups?: { readonly count: number; readonly chosen: number } | null;
}

/** The experts of each token, best first, and what each counts. */
export interface Routed {
  /** i32 [tokens, choices]. */
  readonly experts: Tensor;
  /** f32 [tokens, choices]. */
  readonly weights: Tensor;
}

/** Scores below every score, which nobody chooses. */
const excluded = -1e30;

/** Positions of the `count` largest along the last axis, largest first, the first of equals: i32 [..., count]. torch.topk. */
export function topPositions(scores: Tensor, count: number): Tensor {
  const size = scores.shape[scores.rank - 1] ?? 0;
  const found: Tensor[] = [];
  let rest = scores.detach();
  for (let i = 0; i < count; i++) {
    const best = argmax(rest, -1);
    found.push(best.unsqueeze(best.rank));
    if (i + 1 < count) rest = oneHot(best, size).greater(0).where(excluded, rest);
  }
  return concat(found, scores.rank - 1);
}

/** Elements of the last axis at positions: x [tokens, size], positions i32 [tokens, count] → [tokens, count]. torch.gather. */
function at(x: Tensor, positions: Tensor): Tensor {
  return oneHot(positions, x.shape[1] ?? 0)
    .mul(x.unsqueeze(1))
    .sum(2);
}

/** Scores with those of all but the best groups excluded (DeepSeek-V3, eq. 14 and 15 of DeepSeek-V2 likewise). */
function ofBestGroups(scores: Tensor, { count, chosen }: { readonly count: number; readonly chosen: number }): Tensor {
  const [tokens = 0, experts = 0] = scores.shape;
  const size = experts / count;
  const grouped = scores.reshape([tokens, count, size]);
  const two = Math.min(2, size);
  const best = oneHot(topPositions(grouped, two), size).mul(grouped.unsqueeze(2)).sum([2, 3]);
  const isBest = oneHot(topPositions(best, chosen), count).sum(1).reshape([tokens, count, 1]).greater(0);
  return isBest.where(grouped, excluded).reshape([tokens, experts]);
}

/** The experts of each token and their weights, of router logits f32 [tokens, experts]. `correction` [experts] moves the choice, not the weights. */
export function route(logits: Tensor, options: RoutingOptions, correction: Tensor | null = null): Routed {
  const { kind, choices, isNormalized, epsilon = 0, scale = 1, groups = null } = options;
  const scores = kind === "softmax" ? logits.softmax(-1) : kind === "sigmoid" ? logits.sigmoid() : logits;
  const corrected = correction ? scores.add(correction) : scores;
  const experts = topPositions(groups ? ofBestGroups(corrected, groups) : corrected, choices);
  const chosen = at(scores, experts);
  if (kind === "softmaxOfChosen") return { experts, weights: chosen.softmax(-1) };
  const weights = isNormalized ? chosen.div(chosen.sum(1, { keepDims: true }).add(epsilon)) : chosen;
  return { experts, weights: scale === 1 ? weights : weights.mul(scale) };
}
