import { type Tensor, zeros } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { targetsFor } from "../targeting/defaults.js";
import { matchAmong, type TargetOptions } from "../targeting/match.js";
import { type DenseLayer, type EmbeddingLayer, isDense, isEmbedding } from "../targeting/model.js";
import { inLayout } from "./lora.js";
import { type Attachment, defineMethod, type Method, type PlaceContext, wrapping } from "./method.js";
import { oftFromPeft, oftToPeft } from "./peft-oft.js";
import { cayley, cayleyNeumann, rotated, skewSymmetric } from "./rotation.js";
import { checkChoice } from "./sizes.js";

/** How OFT is set up. Names in parentheses are PEFT's. */
export interface OftOptions extends TargetOptions {
  /** Width of a rotated block (`oft_block_size`); a layer takes the divisor of its width that is nearest. Default 32, 0 with `blocks`. */
  readonly blockSize: number;
  /** Number of blocks (`r`) instead of their width, likewise. Default 0: the width says it. */
  readonly blocks: number;
  /** Keeps the rotations near the identity (COFT; `coft`). Default false. */
  readonly constrained: boolean;
  /** How near: the bound of ‖Q‖ of a layer (`eps`). Default 6e-5. */
  readonly epsilon: number;
  /** One rotation for all blocks of a layer (`block_share`). Default false. */
  readonly shared: boolean;
  /** Terms of the Neumann series in place of an inverse (`num_cayley_neumann_terms`), 0 for the exact one, at most 100. Default 5. */
  readonly neumannTerms: number;
  /** First values (`init_weights`): "identity" or "random", normal with deviation 0.1. */
  readonly init: "identity" | "random";
}

/** Terms of the series that are ever computed: each is a product in every step. */
const mostTerms = 100;

/** Defaults and checks. Throws AdapterError. */
function oftOptions(given: Partial<OftOptions>): OftOptions {
  const { blocks = 0, blockSize = blocks > 0 ? 0 : 32, constrained = false, epsilon = 6e-5, ...rest } = given;
  const { shared = false, neumannTerms = 5, init = "identity", ...targets } = rest;
  for (const [name, value] of Object.entries({ blocks, blockSize, neumannTerms })) {
    if (!Number.isInteger(value) || value < 0) throw new AdapterError(`${name} is ${value}. It is a whole number of at least 0.`, [name]);
  }
  if (neumannTerms > mostTerms)
    throw new AdapterError(`neumannTerms is ${neumannTerms}, more than ${mostTerms}. A few terms suffice; 0 takes the inverse itself.`, [
      "neumannTerms",
    ]);
  if (blocks > 0 === blockSize > 0)
    throw new AdapterError(`blocks is ${blocks} and blockSize is ${blockSize}. Give one of them and leave the other 0.`, [
      "blocks",
      "blockSize",
    ]);
  if (!(epsilon > 0)) throw new AdapterError(`epsilon is ${epsilon}. It is a positive number.`, ["epsilon"]);
  checkChoice("init", init, ["identity", "random"]);
  return { ...targets, blocks, blockSize, constrained, epsilon, shared, neumannTerms, init };
}

/** The divisor of `width` nearest to `wanted`, the smaller of two. peft's adjust_oft_parameters. */
export function nearestDivisor(width: number, wanted: number): number {
  if (wanted >= width) return width;
  for (let distance = 0; ; distance++) {
    for (const divisor of [wanted - distance, wanted + distance]) if (divisor >= 1 && width % divisor === 0) return divisor;
  }
}

/** What OFT puts on one place, and the constraint on it. */
export interface OftAttachment extends Attachment {
  /** Part of a training step: writes the constrained values over the parameter's. Absent without a constraint. */
  readonly project?: () => void;
}

/** The trained triangles [blocks, size (size − 1) / 2] of one place and the rotations that they stand for. */
function rotationsOf(width: number, options: OftOptions, { name, generator }: PlaceContext) {
  const size = options.blockSize > 0 ? nearestDivisor(width, options.blockSize) : width / nearestDivisor(width, options.blocks);
  if (size < 2)
    throw new AdapterError(`${name} is ${width} wide, whose nearest block has size 1, which cannot turn. Choose another blockSize.`, [
      name,
    ]);
  const shape = [options.shared ? 1 : width / size, (size * (size - 1)) / 2];
  const triangles = options.init === "random" ? generator.normal(shape, 0, 0.1) : zeros(shape, { device: generator.device });
  const skew = skewSymmetric(size, generator.device);
  const limit = options.epsilon / Math.sqrt(shape[0] ?? 1);
  /** Triangles whose full matrix has at most the norm `limit`; the gradient goes straight through. */
  const constrained = (): Tensor => {
    // Each number stands twice in Q.
    const norms = triangles.square().sum(1, { keepDims: true }).mul(2).sqrt();
    const factors = norms.greater(limit).where(norms.maximum(limit).reciprocal().mul(limit), 1);
    return triangles.add(triangles.mul(factors).sub(triangles).detach());
  };
  const rotations = (): Tensor => {
    const q = skew.of(options.constrained ? constrained() : triangles);
    return options.neumannTerms > 0 ? cayleyNeumann(q, options.neumannTerms) : cayley(q);
  };
  return { triangles, rotations, others: () => skew.tensors, project: () => triangles.assign(constrained().detach()) };
}

function attachment(place: DenseLayer | EmbeddingLayer, options: OftOptions, context: PlaceContext): OftAttachment {
  const width = isDense(place) ? place.inFeatures : (place.weight.shape[1] ?? 0);
  const { triangles, rotations, others, project } = rotationsOf(width, options, context);
  const constraint = options.constrained ? { project } : {};
  if (!isDense(place)) {
    return {
      parameters: { "oft_embedding_R.weight": triangles },
      others,
      enable: wrapping(place, (ids, next) => rotated(next(ids), rotations())),
      merge: () => [{ weight: place.weight, value: rotated(place.weight.cast("f32"), rotations()) }],
      ...constraint,
    };
  }
  return {
    parameters: { "oft_R.weight": triangles },
    others,
    enable: wrapping(place, (x, next) => next(rotated(x, rotations()))),
    merge: () => {
      const { weight } = place;
      return [{ weight, value: inLayout(place, rotated(inLayout(place, weight).cast("f32"), rotations().transpose(1, 2))) }];
    },
    ...constraint,
  };
}

/**
 * OFT (Qiu et al. 2023, eq. 6; here as PEFT's second version, which turns the input): h = W0 (x R) + b, with R block-diagonal and
 * orthogonal, R = (I − Q)(I + Q)⁻¹ (or the series of its inverse) of a skew-symmetric Q, at first 0. COFT keeps ‖Q‖ within epsilon: before each step the parameter is
 * projected, without a gradient. On an embedding the looked-up vector is turned. Merged: W = W0 Rᵀ. On GPT-2's transposed layers PEFT
 * cannot load it. peft.OFTConfig.
 */
export const oft: Method<OftOptions, DenseLayer | EmbeddingLayer, OftAttachment> = defineMethod("oft", {
  options: oftOptions,
  places: (model, options, isStrict) => {
    const modules = [...model.namedModules()].flatMap(([name, module]) =>
      isDense(module) || isEmbedding(module) ? [[name, module] as const] : [],
    );
    return matchAmong(new Map(modules), options.targets ?? targetsFor(model), options, isStrict, "layer");
  },
  riders: ["bias", "modulesToSave"],
  peftBias: "oft",
  attach: (places, options, context) =>
    new Map([...places].map(([name, place]) => [name, attachment(place, options, { ...context, name })])),
  training: (attachments, { constrained }) =>
    constrained
      ? {
          beforeUpdate: () => {
            for (const { project } of attachments.values()) project?.();
          },
        }
      : {},
  toPeft: oftToPeft,
  fromPeft: oftFromPeft,
});
