import type { Tensor } from "@lowrank/tensor";
import type { Adapter } from "../adapter.js";
import { AdapterError, listed } from "../errors.js";
import type { LoraPlace } from "../methods/lora.js";
import type { DenseLayer } from "../targeting/model.js";

/**
 * A LoRA adapter's part on one layer: what it adds is scaling · B A. One that began as PiSSA or OLoRA adds scaling · (B A − B0 A0), so that A
 * is [A; A0] and B is [B, −B0] here, of twice its rank.
 */
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
 * what, and when first values lack; `what` says for whom, as in "combined".
 */
export function factorsOf(adapter: Adapter, what: string): Map<string, Factors> {
  const { method } = adapter;
  if (method.name !== "lora") {
    throw new AdapterError(
      `Only LoRA adapters can be ${what}, and this one is of method "${method.name}". Use adapters of method "lora", or merge it into its base.`,
      [method.name],
    );
  }
  const factors = new Map<string, Factors>();
  const others: string[] = [];
  for (const [name, { parameters, constants, pair }] of adapter.attachments) {
    const { "lora_A.weight": _a, "lora_B.weight": _b, ...rest } = { ...parameters, ...constants };
    for (const key of Object.keys(rest)) others.push(`${name}.${key}`);
    // LoRA's own places: a pair of matrices is on a dense layer, or on a weight by its name.
    const place = adapter.places.get(name) as LoraPlace;
    if ("path" in place) others.push(place.path);
    if (!pair) continue;
    const { a, b } = pair.plain();
    factors.set(name, { layer: place as DenseLayer, a, b, rank: a.shape[0] ?? 1, scaling: pair.scaling });
  }
  for (const { place, attachment } of adapter.riders.passengers)
    for (const key of Object.keys(attachment.parameters)) others.push(`${place}.${key}`);
  if (others.length > 0) {
    throw new AdapterError(
      `Only pairs A and B on dense layers can be ${what}, and the adapter holds more: ${listed(others, 4)}. Train it without these, or merge it into its base.`,
      others,
    );
  }
  return factors;
}
