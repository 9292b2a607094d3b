import type { Tensor } from "@lowrank/tensor";
import { NotApplicableError } from "../errors.js";
import { namesOrNull } from "../peft/targets.js";
import { matchAmong, type TargetOptions } from "../targeting/match.js";
import type { AdaptableModel, AdaptableModule } from "../targeting/model.js";
import { copyOf, defineMethod, type Method, onEach, replacing } from "./method.js";

/** Which modules' biases are trained; all of them when `targets` is absent. */
export interface BitfitOptions extends Pick<TargetOptions, "exclude"> {
  readonly targets?: readonly string[] | string;
}

/** A module with a bias. */
export interface BiasedModule {
  readonly module: AdaptableModule;
  readonly bias: Tensor;
}

/** Throws NotApplicableError for a model without any. */
function biasedModules(model: AdaptableModel): Map<string, BiasedModule> {
  const modules = model.namedModules();
  const found = new Map<string, BiasedModule>();
  for (const [name, bias] of model.namedParameters()) {
    if (!name.endsWith(".bias")) continue;
    const path = name.slice(0, -".bias".length);
    const module = modules.get(path);
    if (module) found.set(path, { module, bias });
  }
  if (found.size === 0)
    throw new NotApplicableError(
      "The model has no biases, so BitFit has nothing to train. Use a method that adds parameters, for instance lora.",
    );
  return found;
}

/**
 * BitFit (Ben Zaken et al. 2022): only biases are trained, as copies that stand in the place of the model's own. The file holds the
 * biases themselves. Merged: they are written over the model's. PEFT has no such method; the file is our own.
 */
export const bitfit: Method<BitfitOptions, BiasedModule> = defineMethod("bitfit", {
  options: (given) => ({ ...given }),
  places: (model, options, isStrict) => matchAmong(biasedModules(model), options.targets ?? /.*/, options, isStrict, "module with a bias"),
  attach: onEach(({ module, bias }) => {
    const copy = copyOf(bias);
    return {
      parameters: { bias: copy },
      enable: replacing(module, { bias: copy }),
      merge: () => [{ weight: bias, value: copy }],
    };
  }),
  toPeft: ({ targets, exclude }) => ({
    peft_type: "BITFIT",
    ...(targets !== undefined && { target_modules: namesOrNull(targets) }),
    ...(exclude !== undefined && { exclude_modules: namesOrNull(exclude) }),
  }),
  fromPeft: (fields) => {
    if (fields.peek("peft_type") !== "BITFIT") return null;
    fields.pass("peft_type");
    const targets = fields.takeNames("target_modules");
    const exclude = fields.takeNames("exclude_modules");
    return { ...(targets !== undefined && { targets }), ...(exclude !== undefined && { exclude }) };
  },
});
