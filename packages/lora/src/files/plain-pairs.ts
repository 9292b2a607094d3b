import type { Tensor } from "@lowrank/tensor";
import type { Adapter } from "../adapter.js";
import { AdapterError, listed } from "../errors.js";
import type { LoraOptions, LoraPlace } from "../methods/lora.js";
import { scalingOf } from "../methods/pair.js";
import { wholePair } from "../methods/parts.js";
import { byPattern } from "../targeting/match.js";

/** What a plain adapter does on one module: W + scaling · B A of a dense layer's W [out, in], E + scaling · (B A)ᵀ of an embedding's E. */
export interface PlainPair {
  /** The module's name in the model. */
  readonly path: string;
  readonly kind: "dense" | "embedding";
  /** [rank, in], or [rank, count] of an embedding. */
  readonly a: Tensor;
  /** [out, rank], or [width, rank]. */
  readonly b: Tensor;
  readonly scaling: number;
  /** DoRA's m [out]; null for plain LoRA. */
  readonly magnitude: Tensor | null;
}

/** The way that works for whatever another tool's adapters cannot say. */
const remedy = "Merge it into its base (lowrank merge) and export the model.";

/**
 * A LoRA or DoRA adapter as one pair a module, in the model's order, whatever its first values took out of the base. Lazy. Throws AdapterError,
 * naming them, for what is trained beside the pairs and for pairs on experts; for other methods; and before `initialize` where first values
 * lack. `format` is for errors.
 */
export function plainPairs(adapter: Adapter, format: string): readonly PlainPair[] {
  adapter.checkAlive();
  const { method } = adapter;
  if (method.name !== "lora" && method.name !== "dora")
    throw new AdapterError(`${format} holds pairs of LoRA alone, and this adapter is of method "${method.name}". ${remedy}`, [method.name]);
  const options = adapter.options as LoraOptions;
  const pairs: PlainPair[] = [];
  const others: string[] = [];
  for (const [path, { parameters, constants, pair, plain, saved }] of adapter.attachments) {
    const place = adapter.places.get(path) as LoraPlace; // LoRA's own places
    const {
      "lora_A.weight": denseA,
      "lora_B.weight": denseB,
      lora_embedding_A: tableA,
      lora_embedding_B: tableB,
      lora_magnitude_vector: magnitude = null,
      ...rest
    } = plain?.() ?? saved?.() ?? { ...parameters, ...constants };
    for (const key of Object.keys(rest)) others.push(`${path}.${key}`);
    const scaling = pair?.scaling ?? scalingAt(path, place, options);
    if ("projection" in place) others.push(place.path);
    else if (denseA && denseB) {
      // A weight by its own name is adapted as it is stored, GPT-2's [in, out].
      const isTurned = "path" in place && place.layer.isTransposed;
      pairs.push({ path, kind: "dense", a: isTurned ? denseB.t() : denseA, b: isTurned ? denseA.t() : denseB, scaling, magnitude });
    } else if (tableA && tableB) pairs.push({ path, kind: "embedding", a: tableA, b: tableB, scaling, magnitude });
  }
  for (const { place, attachment } of adapter.riders.passengers)
    for (const key of Object.keys({ ...attachment.parameters, ...attachment.constants })) others.push(`${place}.${key}`);
  if (others.length > 0)
    throw new AdapterError(`${format} holds pairs on layers alone, and the adapter has more: ${listed(others, 4)}. ${remedy}`, others);
  return pairs;
}

function scalingAt(path: string, place: LoraPlace, options: LoraOptions): number {
  if ("parts" in place) {
    const { rank, alpha } = wholePair(place, options);
    return alpha / (options.rslora ? Math.sqrt(rank) : rank);
  }
  const name = "path" in place ? place.path : path;
  return scalingOf(options, name, byPattern(options.rankPattern, name, options.rank));
}
