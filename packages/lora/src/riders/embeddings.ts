import { Tensor } from "@lowrank/tensor";
import type { Passenger, RiderContext, RiderOptions } from "../methods/rider.js";
import type { Targets } from "../targeting/match.js";
import { Pattern } from "../targeting/pattern.js";

/** The names by which PEFT knows embeddings and output layers among the targets. */
const embeddingNames = ["embed_tokens", "lm_head"] as const;

function namesEmbedding(targets: Targets | undefined, places: Iterable<string>): boolean {
  if (targets === undefined) return false;
  if (Array.isArray(targets)) return embeddingNames.some((name) => targets.includes(name));
  const source = targets instanceof RegExp ? targets.source : (targets as string);
  if (source.toLowerCase() === "all-linear") return false;
  const pattern = new Pattern(source, "targets");
  return [...places].some((place) => embeddingNames.some((name) => place.endsWith(name)) && pattern.test(place));
}

/**
 * Where an embedding or an output layer is targeted by its usual name, PEFT's file holds its whole weight beside the adapter, and so does
 * ours. It is not trained and not read back: the base has it. Not with trainable tokens, as in PEFT.
 */
export function saveEmbeddings(
  { trainableTokens }: RiderOptions,
  { model, targeted }: RiderContext,
  targets: Targets | undefined,
): Passenger[] {
  if (trainableTokens !== undefined || !namesEmbedding(targets, targeted)) return [];
  const passengers: Passenger[] = [];
  for (const [place, module] of model.namedModules()) {
    const { weight } = module as { readonly weight?: unknown };
    if (!(weight instanceof Tensor) || !targeted.has(place) || !/(^|\.)(embed_tokens|wte|lm_head)$/.test(place)) continue;
    const saved = (): Record<string, Tensor> => ({ "base_layer.weight": weight.cast("f32") });
    passengers.push({ place, attachment: { parameters: {}, saved, enable: () => () => {}, merge: () => [] } });
  }
  return passengers;
}
