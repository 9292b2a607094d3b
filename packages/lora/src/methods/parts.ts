import { concat, type Tensor, zeros } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { byPattern } from "../targeting/match.js";
import { type FusedPlace, joinedShares, LayerPart, outputAxis, sharesOf } from "../targeting/parts.js";
import { initNamed } from "./init/table.js";
import type { LoraOptions } from "./lora.js";
import type { Attachment, MergedWeight } from "./method.js";

/** Rank, and alpha of the same scaling, of the one pair that does what the pairs on a fused layer's parts do. */
export function wholePair({ parts }: FusedPlace, options: LoraOptions): { readonly rank: number; readonly alpha: number } {
  const ranks = [...parts.keys()].map((name) => byPattern(options.rankPattern, name, options.rank));
  const alphas = [...parts.keys()].map((name) => byPattern(options.alphaPattern, name, options.alpha));
  const [rank = 0] = ranks;
  const [alpha = 0] = alphas;
  if (ranks.some((other) => other !== rank) || alphas.some((other) => other !== alpha)) {
    throw new AdapterError(
      `${[...parts.keys()].join(" and ")} have ranks ${ranks.join(", ")} and alphas ${alphas.join(", ")}; a file holds parts of one layer as one pair with one scaling. Give them the same, or adapt the whole layer.`,
      [...parts.keys()],
    );
  }
  const factor = options.rslora ? Math.sqrt(ranks.length) : ranks.length;
  return { rank: rank * ranks.length, alpha: alpha * factor };
}

/** Throws AdapterError for options with which no one pair on the whole layer does what pairs on its parts do. */
function check(place: FusedPlace, options: LoraOptions): void {
  const names = [...place.parts.keys()];
  const refuse = (fact: string, remedy: string): never => {
    throw new AdapterError(`${names.join(" and ")}: ${fact}. ${remedy}`, names);
  };
  if (options.dropout > 0) refuse("parts of a layer would each have a dropout of their own, which no file can say", "Set dropout to 0.");
  if (options.loraBias) refuse("loraBias is for whole layers", "Leave it out, or target the whole layer.");
  const { fromWeight, fromResidual, needsData } = initNamed(options.init);
  if (fromWeight || fromResidual || needsData)
    refuse(`init "${String(options.init)}" needs a whole weight`, 'Use "kaiming", or target the whole layer.');
  wholePair(place, options);
}

/**
 * Pairs on parts of a fused layer, such as the queries and values of GPT-2's `c_attn`. Their parameters are `q.lora_A.weight` and so on below the
 * layer; the file holds the one pair that equals them, which PEFT reads: A one below the other [Σ rank, in], B [out, Σ rank] with each part's B
 * in its own rows and columns and zero elsewhere. Throws AdapterError for options with which they cannot be one pair.
 */
export function partsAttachment(
  place: FusedPlace,
  options: LoraOptions,
  attach: (part: LayerPart, name: string) => Attachment,
): Attachment {
  check(place, options);
  const { layer } = place;
  const made = [...place.parts].map(([name, part]) => ({ part, attachment: attach(part, name) }));
  const prefixed = (tensors: (attachment: Attachment) => Readonly<Record<string, Tensor>> | undefined): Record<string, Tensor> =>
    Object.fromEntries(
      made.flatMap(({ part, attachment }) =>
        Object.entries(tensors(attachment) ?? {}).map(([key, tensor]) => [`${part.key}.${key}`, tensor] as const),
      ),
    );
  const stored = ({ parameters, constants, saved }: Attachment, key: string): Tensor =>
    (saved?.() ?? { ...parameters, ...constants })[key] as Tensor; // pairs have both
  return {
    get parameters() {
      return prefixed(({ parameters }) => parameters);
    },
    get constants() {
      return prefixed(({ constants }) => constants);
    },
    others: () => made.flatMap(({ attachment }) => attachment.others?.() ?? []),
    saved: () => {
      const pairs = made.map(({ part, attachment }) => ({
        part,
        a: stored(attachment, "lora_A.weight"),
        b: stored(attachment, "lora_B.weight"),
      }));
      const columns = pairs.map(({ part, b }) => {
        const [, rank = 0] = b.shape;
        const none = layer.fusedParts.map((other, i) => zeros([new LayerPart(layer, i, other).outFeatures, rank], { device: b.device }));
        return joinedShares(
          layer,
          none.map((zero, i) => (i === part.index ? b : zero)),
          0,
        );
      });
      return {
        "lora_A.weight": concat(
          pairs.map(({ a }) => a),
          0,
        ),
        "lora_B.weight": concat(columns, 1),
      };
    },
    initialize: async () => {
      for (const { attachment } of made) await attachment.initialize?.();
    },
    changeGradient: (name, gradient) => {
      const own = made.find(({ part }) => name.startsWith(`${part.key}.`));
      return own?.attachment.changeGradient?.(name.slice(own.part.key.length + 1), gradient) ?? gradient;
    },
    enable: () => {
      const removers = made.map(({ attachment }) => attachment.enable());
      return () => {
        for (const remove of removers.reverse()) remove();
      };
    },
    merge: () => {
      const changes = made.map(({ part, attachment }) => ({ part, change: attachment.merge?.()[0] as MergedWeight })); // pairs merge
      const axis = outputAxis(layer, layer.weight);
      const inPlaces = (tensor: Tensor, replaced: (part: LayerPart, change: MergedWeight) => Tensor): Tensor => {
        const shares = sharesOf(layer, tensor, axis);
        for (const { part, change } of changes) shares[part.index] = replaced(part, change);
        return joinedShares(layer, shares, axis);
      };
      return [
        {
          weight: layer.weight,
          value: inPlaces(layer.weight.cast("f32"), (_, change) => change.value),
          restore: (merged) => inPlaces(merged, (part, change) => change.restore?.(part.share(merged)) ?? part.share(merged)),
        },
      ];
    },
  };
}
