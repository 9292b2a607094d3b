import { type Tensor, zeros } from "@lowrank/tensor";
import { AdapterError, NotApplicableError } from "../errors.js";
import { namesOrNull } from "../peft/targets.js";
import { matchAmong, type TargetOptions } from "../targeting/match.js";
import { type AdaptableModel, type AdaptableModule, type DenseLayer, isDense } from "../targeting/model.js";
import { type Attachment, copyOf, defineMethod, type Method, onEach, refusePackedParameter, replacing, wrapping } from "./method.js";

/** Which modules' biases are trained; all of them when `targets` is absent. */
export interface BitfitOptions extends Pick<TargetOptions, "exclude"> {
  readonly targets?: readonly string[] | string;
  /** Gives every dense layer without a bias one that starts at 0 and is trained too: a variant for models like Llama. Default false. */
  readonly addMissing?: boolean;
}

/** A module with a bias, or a dense layer that is given one. */
export type BiasedModule =
  | { readonly module: AdaptableModule; readonly bias: Tensor }
  | { readonly module: DenseLayer; readonly bias: null };

/** Throws NotApplicableError for a model without any, where none are to be added. */
function biasedModules(model: AdaptableModel, addMissing: boolean): Map<string, BiasedModule> {
  const modules = model.namedModules();
  const found = new Map<string, BiasedModule>();
  for (const [name, bias] of model.namedParameters()) {
    if (!name.endsWith(".bias")) continue;
    const path = name.slice(0, -".bias".length);
    const module = modules.get(path);
    if (module) found.set(path, { module, bias });
  }
  if (addMissing) {
    const all = new Map<string, BiasedModule>();
    for (const [name, module] of modules) {
      const own = found.get(name) ?? (isDense(module) && !module.bias ? { module, bias: null } : undefined);
      if (own) all.set(name, own);
    }
    return all;
  }
  if (found.size === 0) {
    throw new NotApplicableError(
      "The model has no biases, so BitFit has nothing to train. Give its dense layers some (addMissing), or use a method that adds parameters, for instance lora.",
    );
  }
  return found;
}

/** A bias where the layer has none, 0 at first: y = W x + b. */
function addedBias(layer: DenseLayer, name: string): Attachment {
  const bias = zeros([layer.outFeatures], { device: layer.weight.device });
  return {
    parameters: { bias },
    enable: wrapping(layer, (x, next) => next(x).add(bias)),
    merge: () => {
      throw new AdapterError(
        `${name} has no bias, and the checkpoint's configuration no place for the one that was added (addMissing). Keep the adapter beside the model.`,
        [name],
      );
    },
  };
}

/**
 * BitFit (Ben Zaken et al. 2022): only biases are trained, as copies that stand in the place of the model's own. The file holds the
 * biases themselves. Merged: they are written over the model's; not where some were added (`addMissing`), which the paper does not do.
 * PEFT has no such method; the file is our own.
 */
export const bitfit: Method<BitfitOptions, BiasedModule> = defineMethod("bitfit", {
  options: ({ addMissing = false, ...given }) => {
    if (typeof addMissing !== "boolean")
      throw new AdapterError(`addMissing is ${String(addMissing)}. It is true or false.`, ["addMissing"]);
    return { ...given, addMissing };
  },
  places: (model, options, isStrict) =>
    matchAmong(biasedModules(model, options.addMissing ?? false), options.targets ?? /.*/, options, isStrict, "module with a bias"),
  attach: onEach(({ module, bias }, _options, { name }) => {
    if (!bias) return addedBias(module, name);
    refusePackedParameter("bitfit", `${name}.bias`, bias);
    const copy = copyOf(bias);
    return {
      parameters: { bias: copy },
      enable: replacing(module, { bias: copy }),
      merge: () => [{ weight: bias, value: copy }],
    };
  }),
  toPeft: ({ targets, exclude, addMissing }) => ({
    peft_type: "BITFIT",
    ...(addMissing === true && { add_missing: true }),
    ...(targets !== undefined && { target_modules: namesOrNull(targets) }),
    ...(exclude !== undefined && { exclude_modules: namesOrNull(exclude) }),
  }),
  fromPeft: (fields) => {
    if (fields.peek("peft_type") !== "BITFIT") return null;
    fields.pass("peft_type");
    const targets = fields.takeNames("target_modules");
    const exclude = fields.takeNames("exclude_modules");
    const addMissing = fields.takeFlag("add_missing");
    return { addMissing, ...(targets !== undefined && { targets }), ...(exclude !== undefined && { exclude }) };
  },
});
