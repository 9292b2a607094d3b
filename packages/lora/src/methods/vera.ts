import { nn } from "@lowrank/autograd";
import { type Device, full, largest, ones, type Tensor, tensor, zeros } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import type { PeftFields } from "../peft/fields.js";
import { layerFields, takeTargets, targetModules } from "../peft/targets.js";
import { matchLayers, type TargetOptions } from "../targeting/match.js";
import type { DenseLayer } from "../targeting/model.js";
import { inLayout } from "./lora.js";
import { mersenneTwister, uniformValues } from "./mersenne.js";
import { type AttachContext, type Attachment, defineMethod, type Method, wrapping } from "./method.js";
import { checkChoice, checkSizes } from "./sizes.js";

/** How VeRA is set up. Names in parentheses are PEFT's. */
export interface VeraOptions extends Omit<TargetOptions, "exclude"> {
  /** Inner size of the projections (`r`). Default 256: they cost memory and no training. */
  readonly rank: number;
  /** Seed of the shared projections (`projection_prng_key`). Default 0. */
  readonly projectionKey: number;
  /** Puts the projections into the file; without, who reads it makes them again from the key (`save_projection`). Default true. */
  readonly saveProjection: boolean;
  /** Share of the bypass's input that is zeroed while training (`vera_dropout`), in [0, 1). Default 0. */
  readonly dropout: number;
  /** First value of λ_d (`d_initial`). Default 0.1. */
  readonly initial: number;
  /** First values (`init_weights`): "identity" starts at the base's output, "random" has λ_b 1 and λ_d normal. */
  readonly init: "identity" | "random";
}

/** Defaults and checks. Throws AdapterError. */
function veraOptions(given: Partial<VeraOptions>): VeraOptions {
  const { rank = 256, projectionKey = 0, saveProjection = true, dropout = 0, initial = 0.1, init = "identity", ...targets } = given;
  checkSizes({ rank, dropout });
  checkChoice("init", init, ["identity", "random"]);
  if (!Number.isInteger(projectionKey))
    throw new AdapterError(`projectionKey is ${projectionKey}. It is a whole number, the seed of the projections.`, ["projectionKey"]);
  return { ...targets, rank, projectionKey, saveProjection, dropout, initial, init };
}

/** The projections that all layers share, as large as the largest of them. */
interface Projections {
  /** [rank, max in] */
  readonly a: Tensor;
  /** [max out, rank] */
  readonly b: Tensor;
}

/** Kaiming uniform for the gain √2, from the key alone: the numbers that PEFT draws. peft.tuners.vera.model._kaiming_init. */
function projections(layers: readonly DenseLayer[], { rank, projectionKey }: VeraOptions, device: Device): Projections {
  if (layers.length === 0)
    throw new AdapterError("no layer is left for VeRA's projections: all that are targeted are trained whole. Name others as targets.", [
      "targets",
    ]);
  const draw = mersenneTwister(projectionKey);
  const drawn = (rows: number, columns: number): Tensor => {
    const bound = Math.sqrt(3) * (Math.SQRT2 / Math.sqrt(columns));
    return tensor(uniformValues(draw, rows * columns, -bound, bound), { device, shape: [rows, columns] });
  };
  const a = drawn(rank, largest(layers.map(({ inFeatures }) => inFeatures)));
  return { a, b: drawn(largest(layers.map(({ outFeatures }) => outFeatures)), rank) };
}

function attachment(layer: DenseLayer, shared: Projections, options: VeraOptions, context: AttachContext): Attachment {
  const { generator, dropoutGenerator } = context;
  const { device } = generator;
  const isRandom = options.init === "random";
  const scaleB = (isRandom ? ones : zeros)([layer.outFeatures], { device });
  const scaleD = isRandom ? generator.normal([options.rank]) : full([options.rank], options.initial, { device });
  // Slices of the first rows and columns. They read the shared tensors, which a file may replace.
  const a = (): Tensor => shared.a.narrow(1, 0, layer.inFeatures);
  const b = (): Tensor => shared.b.narrow(0, 0, layer.outFeatures);
  const delta = (): Tensor =>
    inLayout(
      layer,
      b()
        .mul(scaleB.unsqueeze(1))
        .matmul(a().mul(scaleD.unsqueeze(1))),
    );
  return {
    parameters: { vera_lambda_b: scaleB, vera_lambda_d: scaleD },
    enable: wrapping(layer, (x, next) => {
      const input = layer.isTraining ? nn.dropout(x, options.dropout, dropoutGenerator) : x;
      return next(x).add(input.matmul(a().t()).mul(scaleD).matmul(b().t()).mul(scaleB));
    }),
    merge: () => {
      const { weight } = layer;
      return [{ weight, value: weight.add(delta()), restore: (merged) => merged.sub(delta()) }];
    },
  };
}

/**
 * VeRA (Kopiczko et al. 2024, eq. 2): h = W0 x + λ_b ⊙ B (λ_d ⊙ A x), where all layers share A and B, random and frozen, and train only
 * the vectors λ_b, at first 0, and λ_d. Merged: W = W0 + (λ_b ⊙ B)(λ_d ⊙ A). peft.VeraConfig.
 */
export const vera: Method<VeraOptions, DenseLayer> = defineMethod("vera", {
  options: veraOptions,
  places: matchLayers,
  riders: ["bias", "modulesToSave"],
  peftBias: "vera",
  attach: (places, options, context) => {
    const shared = projections([...places.values()], options, context.generator.device);
    const constants = options.saveProjection ? { vera_A: shared.a, vera_B: shared.b } : undefined;
    const others = (): readonly Tensor[] => [shared.a, shared.b];
    return new Map(
      [...places].map(([name, layer], index): [string, Attachment] => [
        name,
        { ...attachment(layer, shared, options, context), others, ...(index === 0 && constants && { constants }) },
      ]),
    );
  },
  fileName: (place, key) => (key === "vera_A" || key === "vera_B" ? `base_model.${key}` : `base_model.model.${place}.${key}`),
  toPeft: (options, places) => ({
    peft_type: "VERA",
    bias: "none",
    d_initial: options.initial,
    fan_in_fan_out: [...places.values()].some((layer) => layer.isTransposed),
    init_weights: options.init === "identity",
    modules_to_save: null,
    projection_prng_key: options.projectionKey,
    r: options.rank,
    save_projection: options.saveProjection,
    target_modules: targetModules(options.targets, places),
    vera_dropout: options.dropout,
    ...layerFields(options),
  }),
  fromPeft: veraFromPeft,
});

function veraFromPeft(fields: PeftFields): Partial<VeraOptions> | null {
  if (fields.peek("peft_type") !== "VERA") return null;
  fields.pass("peft_type", "fan_in_fan_out");
  if (fields.peek("bias") === "none") fields.pass("bias");
  return {
    rank: fields.takeNumber("r", 256),
    projectionKey: fields.takeNumber("projection_prng_key", 0),
    saveProjection: fields.takeFlag("save_projection", true),
    dropout: fields.takeNumber("vera_dropout", 0),
    initial: fields.takeNumber("d_initial", 0.1),
    init: fields.takeFlag("init_weights", true) ? "identity" : "random",
    ...takeTargets(fields),
  };
}
