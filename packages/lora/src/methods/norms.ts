import type { Tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { namesOrNull, takeTargets, targetModules } from "../peft/targets.js";
import { normTargets, targetsFor } from "../targeting/defaults.js";
import { matchAmong, type TargetOptions } from "../targeting/match.js";
import type { AdaptableModel, AdaptableModule } from "../targeting/model.js";
import { copyOf, defineMethod, type Method, onEach, refusePackedParameter, replacing } from "./method.js";

/** Which modules are tuned: by name, any that has parameters. The model family's norms when `targets` is absent. */
export type NormsOptions = Pick<TargetOptions, "targets" | "exclude">;

/** The parameters below a module by their names there. */
function parametersBelow(model: AdaptableModel, module: string): Map<string, Tensor> {
  const prefix = `${module}.`;
  return new Map(
    [...model.namedParameters()].filter(([name]) => name.startsWith(prefix)).map(([name, value]) => [name.slice(prefix.length), value]),
  );
}

/** "mlp.weight" → ["mlp", "weight"]; "weight" → ["", "weight"]. */
function split(name: string): readonly [path: string, key: string] {
  const dot = name.lastIndexOf(".");
  return [name.slice(0, Math.max(dot, 0)), name.slice(dot + 1)];
}

/** Modules that have parameters of their own. */
function tunable(model: AdaptableModel): Map<string, AdaptableModule> {
  const names = [...model.namedParameters().keys()];
  return new Map([...model.namedModules()].filter(([module]) => module !== "" && names.some((name) => name.startsWith(`${module}.`))));
}

/**
 * LN tuning (Zhao et al. 2023): weights and biases of the norms are trained as a copy that stands in the place of the model's own, which
 * stay as they are. Merged: the copy is written over them. peft.LNTuningConfig.
 */
export const norms: Method<NormsOptions> = defineMethod("norms", {
  options: (given) => ({ ...given }),
  places: (model, options, isStrict) => {
    const modules = tunable(model);
    return matchAmong(modules, options.targets ?? targetsFor(model, normTargets, [...modules.keys()]), options, isStrict, "module");
  },
  riders: ["modulesToSave"],
  attach: onEach((_, _options, { model, name }) => {
    const own = parametersBelow(model, name);
    for (const [key, value] of own) refusePackedParameter("norms", `${name}.${key}`, value);
    const modules = model.namedModules();
    const copies = new Map([...own].map(([key, value]) => [key, copyOf(value)]));
    const enablers = [...copies].map(([path, copy]) => {
      const [below, key] = split(path);
      const owner = modules.get(below === "" ? name : `${name}.${below}`);
      if (!owner) throw new AdapterError(`${name}.${path} belongs to no module of the model. Leave ${name} out of targets.`, [name]);
      return replacing(owner, { [key]: copy });
    });
    return {
      parameters: Object.fromEntries([...copies].map(([key, copy]) => [`ln_tuning_layers.${key}`, copy])),
      enable: () => {
        const removers = enablers.map((enable) => enable());
        return () => {
          for (const remove of removers) remove();
        };
      },
      merge: () => [...own].map(([key, weight]) => ({ weight, value: copies.get(key) ?? weight })),
    };
  }),
  toPeft: (options, places) => ({
    peft_type: "LN_TUNING",
    exclude_modules: namesOrNull(options.exclude),
    modules_to_save: null,
    target_modules: targetModules(options.targets, places),
  }),
  fromPeft: (fields) => {
    if (fields.peek("peft_type") !== "LN_TUNING") return null;
    fields.pass("peft_type");
    return takeTargets(fields);
  },
});
