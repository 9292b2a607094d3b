import { ones, type Tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { namesOrNull, takeTargets, targetModules } from "../peft/targets.js";
import { familyNames, ia3Feedforward, ia3Targets, targetsFor } from "../targeting/defaults.js";
import { matchAmong, type TargetOptions, type Targets } from "../targeting/match.js";
import { type AdaptableModel, type DenseLayer, denseLayers } from "../targeting/model.js";
import { Pattern } from "../targeting/pattern.js";
import { defineMethod, type Method, onEach, wrapping } from "./method.js";
import { checkChoice } from "./sizes.js";

/** How (IA)³ is set up. Names in parentheses are PEFT's. */
export interface Ia3Options extends Pick<TargetOptions, "exclude"> {
  /** As in other methods; the model family's when absent. */
  readonly targets: Targets;
  /**
   * Those of the targets whose input is scaled instead of their output (`feedforward_modules`): endings of names, or a regular
   * expression that must fit the whole name. The model family's when absent.
   */
  readonly feedforward?: readonly string[] | string;
  /** First values (`init_ia3_weights`): "identity" is 1, "random" normal. */
  readonly init: "identity" | "random";
}

/** Defaults and checks. Throws AdapterError for feed-forward names that are not among the targets. */
function ia3Options(given: Partial<Ia3Options>, model: AdaptableModel): Ia3Options {
  // "mlp.c_proj" must stay what it is in the file: its last part alone would take the attention's c_proj as well.
  const { init = "identity", feedforward, targets = targetsFor(model, ia3Targets), ...rest } = given;
  checkChoice("init", init, ["identity", "random"]);
  const isStranger = (name: string): boolean => Array.isArray(targets) && !targets.includes(name);
  const strangers = typeof feedforward === "object" ? feedforward.filter(isStranger) : [];
  if (strangers.length > 0)
    throw new AdapterError(`feedforward names ${strangers.join(", ")}, which targets do not. Name them in both.`, ["feedforward"]);
  const usual = (familyNames(model, ia3Feedforward) ?? []).filter((name) => !isStranger(name));
  return { ...rest, targets, init, feedforward: feedforward ?? usual };
}

/** PEFT compares endings without a dot: "proj" takes "c_proj" as well. */
function feedforwardTest(feedforward: Ia3Options["feedforward"] = []): (name: string) => boolean {
  if (typeof feedforward !== "string") return (name) => feedforward.some((entry) => name.endsWith(entry));
  const pattern = new Pattern(feedforward, "feedforward");
  return (name) => pattern.test(name);
}

/**
 * (IA)³ (Liu et al. 2022, section 3.3): h = l ⊙ (W0 x + b), and W0 (l ⊙ x) + b for feed-forward layers, with l trained and at first 1.
 * Merged: W0's rows and b, or W0's columns, times l. peft.IA3Config.
 */
export const ia3: Method<Ia3Options, DenseLayer> = defineMethod("ia3", {
  options: ia3Options,
  places: (model, options, isStrict) => {
    const layers = denseLayers(model);
    return matchAmong(layers, options.targets, options, isStrict, "dense layer");
  },
  riders: ["modulesToSave"],
  attach: (places, given, context) => {
    const isFeedforward = feedforwardTest(given.feedforward);
    return onEach<Ia3Options, DenseLayer>((layer, options, { name, generator }) => {
      const isInner = isFeedforward(name);
      const { inFeatures, outFeatures, isTransposed } = layer;
      const shape = isInner ? [1, inFeatures] : [outFeatures, 1];
      const scale = options.init === "random" ? generator.normal(shape) : ones(shape, { device: generator.device });
      const flat = (): Tensor => scale.reshape([scale.size]);
      return {
        parameters: { ia3_l: scale },
        enable: wrapping(layer, (x, next) => (isInner ? next(x.mul(flat())) : next(x).mul(flat()))),
        merge: () => {
          const { weight, bias } = layer;
          const merged = { weight, value: weight.cast("f32").mul(isTransposed ? scale.t() : scale) };
          return bias && !isInner ? [merged, { weight: bias, value: bias.cast("f32").mul(flat()) }] : [merged];
        },
      };
    })(places, given, context);
  },
  toPeft: (options, places) => {
    const { targets, feedforward } = options;
    // PEFT asks for the one list to be part of the other, so what "all-linear" stands for is written in full, as PEFT does.
    const isAll = typeof targets === "string" && targets.toLowerCase() === "all-linear";
    const names = [...places.keys()];
    return {
      peft_type: "IA3",
      exclude_modules: namesOrNull(options.exclude),
      fan_in_fan_out: [...places.values()].some((layer) => layer.isTransposed),
      feedforward_modules: namesOrNull(isAll ? names.filter(feedforwardTest(feedforward)) : feedforward),
      init_ia3_weights: options.init === "identity",
      modules_to_save: null,
      target_modules: targetModules(isAll ? names : targets, places),
    };
  },
  fromPeft: (fields) => {
    if (fields.peek("peft_type") !== "IA3") return null;
    fields.pass("peft_type", "fan_in_fan_out");
    const feedforward = fields.takeNames("feedforward_modules");
    const init = fields.takeFlag("init_ia3_weights", true) ? "identity" : "random";
    const { targets, ...rest } = takeTargets(fields);
    return { ...rest, ...(targets !== undefined && { targets }), init, feedforward: feedforward ?? [] };
  },
});
