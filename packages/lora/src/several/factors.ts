import type { Tensor } from "@lowrank/tensor";
import type { Adapter } from "../adapter.js";
import { AdapterError, listed } from "../errors.js";
import { type LoraOptions, type LoraPlace, scalingOf } from "../methods/lora.js";
import type { DenseLayer } from "../targeting/model.js";

/** A LoRA adapter's part on one layer: what it adds is scaling · B A. */
export interface Factors {
  readonly layer: DenseLayer;
  /** [rank, in] */
  readonly a: Tensor;
  /** [out, rank] */
  readonly b: Tensor;
  readonly rank: number;
  readonly scaling: number;
}

/**
 * The factors of a LoRA adapter by layer. Throws AdapterError when it is of another method or holds more than A and B on a layer, naming
 * what; `what` says for whom, as in "combined".
 */
export function factorsOf(adapter: Adapter, what: string): Map<string, Factors> {
  const { method } = adapter;
  if (method.name !== "lora") {
    throw new AdapterError(
      `Only LoRA adapters can be ${what}, and this one is of method "${method.name}". Use adapters of method "lora", or merge it into its base.`,
      [method.name],
    );
  }
  // The method's own options, since it is LoRA.
  const options = adapter.options as LoraOptions;
  const factors = new Map<string, Factors>();
  const others: string[] = [];
  for (const [name, { parameters, constants }] of adapter.attachments) {
    const { "lora_A.weight": a, "lora_B.weight": b, ...rest } = { ...parameters, ...constants };
    others.push(...Object.keys(rest).map((key) => `${name}.${key}`));
    if (!a || !b) continue;
    // LoRA's own places: a pair of matrices is on a dense layer, or on a weight by its name.
    const place = adapter.places.get(name) as LoraPlace;
    if ("path" in place) others.push(place.path);
    const rank = a.shape[0] ?? 1;
    factors.set(name, { layer: place as DenseLayer, a, b, rank, scaling: scalingOf(options, name, rank) });
  }
  for (const { place, attachment } of adapter.riders.passengers)
    others.push(...Object.keys(attachment.parameters).map((key) => `${place}.${key}`));
  if (others.length > 0) {
    throw new AdapterError(
      `Only pairs A and B on dense layers can be ${what}, and the adapter holds more: ${listed(others, 4)}. Train it without these, or merge it into its base.`,
      others,
    );
  }
  return factors;
}
