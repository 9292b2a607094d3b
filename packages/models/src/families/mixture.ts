import type { ActivationName } from "../activation.js";
import { type ExpertsOptions, experts } from "../decoder/experts.js";
import type { FeedForward } from "../decoder/feed-forward.js";
import type { NamedPart } from "../decoder/layer.js";
import { count } from "../schema.js";
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
      stored: { kind: "each", gate: "gate_proj", up: "up_proj", down: "down_proj" },
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
