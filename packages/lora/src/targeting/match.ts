import { AdapterError, listed } from "../errors.js";
import { suffixesOf, targetsFor } from "./defaults.js";
import { type AdaptableModel, type DenseLayer, denseLayers } from "./model.js";
import { Pattern } from "./pattern.js";

/**
 * Which layers: a list of full names or suffixes (`q_proj` fits every module whose name ends in `.q_proj`), "all-linear" for every dense
 * layer except the output layer, or a regular expression that must fit the whole name (a string, as PEFT has it, or a RegExp).
 */
export type Targets = readonly string[] | string | RegExp;

/** How PEFT's configuration narrows targets down. */
export interface TargetOptions {
  /** The model family's usual layers when absent. */
  readonly targets?: Targets;
  /** Layers left out although `targets` fits; `exclude_modules`. */
  readonly exclude?: readonly string[] | string;
  /** Only in transformer blocks of these numbers; `layers_to_transform`. */
  readonly layers?: readonly number[] | number;
  /** What the list of blocks is called, where a name holds several numbers; `layers_pattern`. */
  readonly layersPattern?: readonly string[] | string;
}

/** The layers that project to the vocabulary, which "all-linear" leaves out. */
export const outputLayers: ReadonlySet<string> = new Set(["lm_head", "embed_out", "output"]);

/**
 * The dense layers that the options choose, in the model's order. `isStrict`: every entry of a list must fit a layer.
 * Throws AdapterError, listing the layers that exist, when nothing fits. peft.tuners.tuners_utils.check_target_module_exists.
 */
export function matchLayers(model: AdaptableModel, options: TargetOptions, isStrict = true): Map<string, DenseLayer> {
  return matchAmong(denseLayers(model), options.targets ?? targetsFor(model), options, isStrict, "dense layer");
}

/** `matchLayers` among other modules than dense layers; `kind` is what errors call them. */
export function matchAmong<Place>(
  all: ReadonlyMap<string, Place>,
  targets: Targets,
  options: TargetOptions,
  isStrict: boolean,
  kind: string,
): Map<string, Place> {
  const isList = Array.isArray(targets);
  if (!isList && (options.layers !== undefined || options.layersPattern !== undefined)) {
    throw new AdapterError(
      "layers and layersPattern narrow a list of targets; with a regular expression or all-linear they are refused, as PEFT does. Put the layer numbers into the expression.",
    );
  }
  const fits = isList ? undefined : expression(targets as string | RegExp);
  const isExcluded = exclusion(options.exclude);
  const isInLayers = layerFilter(options);
  const unused = new Set(isList ? (targets as readonly string[]) : []);
  const chosen = new Map<string, Place>();
  for (const [name, layer] of all) {
    const isTarget = fits ? fits(name) : fitsList(name, targets as readonly string[], unused);
    // As in PEFT, a module that is named whole is meant, whatever the layers.
    const isMeant = isList && targets.includes(name);
    if (isTarget && !isExcluded(name) && (isMeant || isInLayers(name))) chosen.set(name, layer);
  }
  const suffixes = suffixesOf(all.keys());
  const existing = `The model's ${kind}s are called ${listed(suffixes, 40)} (for example ${[...all.keys()][0] ?? "none"})`;
  if (chosen.size === 0) {
    throw new AdapterError(`targets ${show(targets)} match no ${kind} of the model. ${existing}; choose among them or "all-linear".`, [
      ...all.keys(),
    ]);
  }
  if (isStrict && unused.size > 0) {
    throw new AdapterError(
      `targets ${show([...unused])} match no ${kind} of the model, the others do. ${existing}; correct or leave out what does not match.`,
      [...all.keys()],
    );
  }
  return chosen;
}

/** True when the name equals an entry or ends in it after a dot. */
function endsIn(name: string, entry: string): boolean {
  return name === entry || name.endsWith(`.${entry}`);
}

function fitsList(name: string, targets: readonly string[], unused: Set<string>): boolean {
  let isFound = false;
  for (const target of targets) {
    if (!endsIn(name, target)) continue;
    unused.delete(target);
    isFound = true;
  }
  return isFound;
}

function expression(targets: string | RegExp): (name: string) => boolean {
  if (typeof targets === "string" && targets.toLowerCase() === "all-linear") {
    return (name) => !outputLayers.has(name.slice(name.lastIndexOf(".") + 1));
  }
  const pattern = new Pattern(typeof targets === "string" ? targets : targets.source, "targets");
  return (name) => pattern.test(name);
}

function exclusion(exclude: TargetOptions["exclude"]): (name: string) => boolean {
  if (exclude === undefined || exclude.length === 0) return () => false;
  if (typeof exclude !== "string") return (name) => exclude.some((entry) => endsIn(name, entry));
  const pattern = new Pattern(exclude, "exclude");
  return (name) => pattern.test(name);
}

function layerFilter({ layers, layersPattern }: TargetOptions): (name: string) => boolean {
  if (layers === undefined || (Array.isArray(layers) && layers.length === 0)) return () => true;
  const given =
    layersPattern === undefined || layersPattern.length === 0 ? null : typeof layersPattern === "string" ? [layersPattern] : layersPattern;
  const patterns = given
    ? given.map((pattern) => new Pattern(pattern, "layersPattern", (source) => `^(?:.*?\\.)?${source}\\.(\\d+)\\.`))
    : [new Pattern("", "layersPattern", () => "^.*?\\.[^.]*\\.(\\d+)\\.")];
  return (name) => {
    for (const pattern of patterns) {
      const found = pattern.exec(name)?.[1];
      if (found !== undefined) return typeof layers === "number" ? Number(found) === layers : layers.includes(Number(found));
    }
    return false;
  };
}

/** Made once for each table of patterns: names are many. */
const compiled = new WeakMap<Readonly<Record<string, number>>, readonly (readonly [pattern: Pattern, value: number])[]>();

/** The value of the first pattern that fits the end of the name, else `otherwise`. peft.utils.other.get_pattern_key. Throws AdapterError. */
export function byPattern(patterns: Readonly<Record<string, number>>, name: string, otherwise: number): number {
  let table = compiled.get(patterns);
  if (!table) {
    const frame = (source: string): string => `^(?:(?:.*\\.)?(?:${source}))$`;
    table = Object.entries(patterns).map(([pattern, value]) => [new Pattern(pattern, "pattern", frame), value] as const);
    compiled.set(patterns, table);
  }
  return table.find(([pattern]) => pattern.test(name))?.[1] ?? otherwise;
}

function show(targets: Targets): string {
  return Array.isArray(targets) ? targets.map((target) => `"${target}"`).join(", ") : `"${String(targets)}"`;
}
