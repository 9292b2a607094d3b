import type { PeftFields } from "../peft/fields.js";
import { layerFields, namesOrNull, takeTargets, targetModules } from "../peft/targets.js";
import type { LycorisOptions } from "./whole-delta.js";

/** The fields that PEFT's LoHaConfig and LoKrConfig have in common. */
export function lycorisToPeft(options: LycorisOptions, places: ReadonlyMap<string, unknown>): Readonly<Record<string, unknown>> {
  return {
    alpha: options.alpha,
    alpha_pattern: options.alphaPattern,
    exclude_modules: namesOrNull(options.exclude),
    module_dropout: options.moduleDropout,
    modules_to_save: null,
    r: options.rank,
    rank_dropout: options.rankDropout,
    rank_pattern: options.rankPattern,
    target_modules: targetModules(options.targets, places),
    // Convolutions only, of which no supported model has any.
    use_effective_conv2d: false,
    ...layerFields(options),
  };
}

/** Takes them. Throws AdapterError for values that are not understood. */
export function lycorisFromPeft(fields: PeftFields): Partial<LycorisOptions> {
  fields.pass("peft_type", "use_effective_conv2d");
  return {
    rank: fields.takeNumber("r", 8),
    alpha: fields.takeNumber("alpha", 8),
    rankDropout: fields.takeNumber("rank_dropout", 0),
    moduleDropout: fields.takeNumber("module_dropout", 0),
    rankPattern: fields.takeNumbers("rank_pattern"),
    alphaPattern: fields.takeNumbers("alpha_pattern"),
    ...takeTargets(fields),
  };
}
