import { AdapterError, listed } from "../errors.js";
import { suffixesOf, targetsFor } from "./defaults.js";
import { type AdaptableModel, type DenseLayer, denseLayers } from "./model.js";

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
const outputLayers: ReadonlySet<string> = new Set(["lm_head", "embed_out", "output"]);

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
  const unused = new Set(isList ? (targets as readonly string[]) : []);
  const chosen = new Map<string, Place>();
  for (const [name, layer] of all) {
    const isTarget = fits ? fits(name) : fitsList(name, targets as readonly string[], unused);
    // As in PEFT, a module that is named whole is meant, whatever the layers.
    const isMeant = isList && targets.includes(name);
    if (isTarget && !isExcluded(name, options.exclude) && (isMeant || isInLayers(name, options))) chosen.set(name, layer);
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
  const pattern = fullMatch(typeof targets === "string" ? targets : targets.source, "targets");
  return (name) => pattern.test(name);
}

/** A Python regular expression that must fit the whole string, as a JavaScript one. Throws AdapterError for an invalid one. */
export function fullMatch(source: string, what: string): RegExp {
  try {
    return new RegExp(`^(?:${source.replaceAll("(?P<", "(?<")})$`, "s");
  } catch (error) {
    throw new AdapterError(
      `${what}: "${source}" is not a valid regular expression (${error instanceof Error ? error.message : String(error)}). Correct it or pass a list of names.`,
    );
  }
}

function isExcluded(name: string, exclude: TargetOptions["exclude"]): boolean {
  if (exclude === undefined || exclude.length === 0) return false;
  return typeof exclude === "string" ? fullMatch(exclude, "exclude").test(name) : exclude.some((entry) => endsIn(name, entry));
}

function isInLayers(name: string, { layers, layersPattern }: TargetOptions): boolean {
  if (layers === undefined || (Array.isArray(layers) && layers.length === 0)) return true;
  const patterns =
    layersPattern === undefined || layersPattern.length === 0 ? null : typeof layersPattern === "string" ? [layersPattern] : layersPattern;
  const expressions = patterns ? patterns.map((pattern) => new RegExp(`^(?:.*?\\.)?${pattern}\\.(\\d+)\\.`)) : [/^.*?\.[^.]*\.(\d+)\./];
  for (const pattern of expressions) {
    const found = pattern.exec(name)?.[1];
    if (found !== undefined) return typeof layers === "number" ? Number(found) === layers : layers.includes(Number(found));
  }
  return false;
}

/** The value of the first pattern that fits the end of the name, else `otherwise`. peft.utils.other.get_pattern_key. */
export function byPattern(patterns: Readonly<Record<string, number>>, name: string, otherwise: number): number {
  for (const [pattern, value] of Object.entries(patterns)) {
    if (fullMatch(`(?:.*\\.)?(?:${pattern})`, "pattern").test(name)) return value;
  }
  return otherwise;
}

function show(targets: Targets): string {
  return Array.isArray(targets) ? targets.map((target) => `"${target}"`).join(", ") : `"${String(targets)}"`;
}
