import type { ActivationName } from "../activation.js";
import { type ExpertsOptions, experts } from "../decoder/experts.js";
import type { FeedForward } from "../decoder/feed-forward.js";
import type { NamedPart } from "../decoder/layer.js";
import type { RoutingOptions } from "../decoder/routing.js";
import { count, flag, positive } from "../schema.js";
import { type FieldsOf, list } from "./fields.js";

/** Gated experts of which checkpoints hold a tensor each, behind a softmax router without biases: what Mixtral began. */
export function mixture(
  options: { readonly count: number; readonly choices: number; readonly inner: number; readonly activation: ActivationName } & Partial<
    Omit<ExpertsOptions, "activation" | "count" | "inner">
  > & { readonly isNormalized?: boolean },
): NamedPart<FeedForward> {
  const { count, choices, inner, activation, isNormalized = true, ...more } = options;
  return {
    name: "mlp",
    part: experts({
      count,
      inner,
      activation: { kind: "gated", activation },
      stored: { kind: "each", gate: "gate_proj", up: "up_proj", down: "down_proj", areTargets: true },
      router: { name: "gate" },
      routing: { kind: "softmax", choices, isNormalized },
      ...more,
    }),
  };
}

/** No token goes through more experts than there are. */
export function fewerChoices(choices: string, count: string): (config: Readonly<Record<string, unknown>>) => string | null {
  return (config) =>
    config[count] === null || Number(config[choices]) <= Number(config[count])
      ? null
      : `"${choices}" ${String(config[choices])} is more than "${count}" ${String(config[count])}`;
}

/** Where layers are dense and where they have experts, as Qwen's files say it. */
export interface SparseLayers {
  readonly decoder_sparse_step: number;
  readonly mlp_only_layers: readonly number[] | null;
}

export const sparseLayers: FieldsOf<SparseLayers> = {
  decoder_sparse_step: count(1),
  mlp_only_layers: list<number>("a list of layer numbers", Number.isInteger),
};

/** True for a layer with experts. */
export function isSparse(layer: number, { decoder_sparse_step: step, mlp_only_layers: dense }: SparseLayers): boolean {
  return !(dense ?? []).includes(layer) && (layer + 1) % step === 0;
}

/** DeepSeek's router: sigmoids with a correction of the choice, experts in groups of which only the best count. */
export interface GroupedRouting {
  readonly num_experts_per_tok: number;
  readonly n_group: number;
  readonly topk_group: number;
  readonly norm_topk_prob: boolean;
  readonly routed_scaling_factor: number;
}

export const groupedRouting: FieldsOf<GroupedRouting> = {
  num_experts_per_tok: count(8),
  n_group: count(8),
  topk_group: count(4),
  norm_topk_prob: flag(true),
  routed_scaling_factor: positive(2.5),
};

/** How experts are chosen by these fields. */
export function routingOf(config: GroupedRouting): RoutingOptions {
  return {
    kind: "sigmoid",
    choices: config.num_experts_per_tok,
    isNormalized: config.norm_topk_prob,
    epsilon: 1e-20,
    scale: config.routed_scaling_factor,
    groups: { count: config.n_group, chosen: config.topk_group },
  };
}

/** Groups of equal size, and as many experts in the chosen ones as each token goes through. */
export function groupsFit(
  experts: number,
  { n_group: groups, topk_group: chosen, num_experts_per_tok: choices }: GroupedRouting,
): string | null {
  if (experts % groups !== 0) return `there are ${experts} experts, not a multiple of "n_group" ${groups}`;
  if (chosen > groups) return `"topk_group" ${chosen} is more than "n_group" ${groups}`;
  const most = (experts / groups) * chosen;
  return choices <= most ? null : `"num_experts_per_tok" ${choices} is more than the ${most} experts of "topk_group" ${chosen} groups`;
}
