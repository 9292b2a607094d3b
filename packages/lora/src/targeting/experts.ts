import { Tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { type AdaptableModel, type AdaptableModule, isDense, isRouter } from "./model.js";

/** One projection of all experts of a layer; its input is blocks of rows, [blocks, rows, in], each of which has one expert. */
export interface ExpertProjection extends AdaptableModule {
  /** [experts, out, in], or [experts, in, out] where transposed. */
  readonly weight: Tensor;
  readonly experts: number;
  readonly isTransposed: boolean;
  /** What the layers of a single expert are called that this is made of; none where no checkpoint has them. */
  readonly formerNames: readonly string[];
  /** Each block of x [blocks, rows, k] times its expert's matrix of `stack` [experts, k, n], during the forward pass. */
  product(x: Tensor, stack: Tensor): Tensor;
}

/** A projection of experts that an adapter goes on, by the name of its weight (`target_parameters`). */
export interface ExpertPlace {
  readonly projection: ExpertProjection;
  /** The weight's own name, which patterns look at. */
  readonly path: string;
}

/** The weights of the experts by their names, with the module that holds each. */
export function expertWeights(model: AdaptableModel): Map<string, { readonly holder: string; readonly projection: ExpertProjection }> {
  const found = new Map<string, { readonly holder: string; readonly projection: ExpertProjection }>();
  for (const [holder, module] of model.namedModules()) {
    const { projections } = module as { readonly projections?: ReadonlyMap<string, ExpertProjection> };
    if (!(projections instanceof Map)) continue;
    for (const [key, projection] of projections as ReadonlyMap<string, ExpertProjection>)
      if (projection.weight instanceof Tensor) found.set(`${holder}.${key}`, { holder, projection });
  }
  return found;
}

/**
 * The names under which PEFT files adapters on weights of one module, which it wraps one after the other: the last is the module's own, in
 * front of it stands `.base_layer` for each that follows.
 */
export function wrappedNames(holder: string, count: number): string[] {
  return Array.from({ length: count }, (_, i) => holder + ".base_layer".repeat(count - 1 - i));
}

/** What a target of the time when each expert had layers of its own says now: the weight, and the layers it has become one of. */
export interface FormerTarget {
  readonly parameter: string;
  readonly names: readonly string[];
}

/** The projections and routers that were layers of single experts once, of a model whose checkpoints still have them. */
export function formerTargets(model: AdaptableModel): FormerTarget[] {
  const found = new Map<string, FormerTarget>();
  for (const [path, { projection }] of expertWeights(model)) {
    const parameter = path.slice(path.lastIndexOf(".") + 1);
    if (projection.formerNames.length > 0) found.set(parameter, { parameter, names: projection.formerNames });
  }
  if (found.size === 0) return [];
  for (const [name, module] of model.namedModules()) {
    if (!isDense(module) || !isRouter(module)) continue;
    const own = name.slice(name.lastIndexOf(".") + 1);
    found.set(own, { parameter: `${own}.weight`, names: [own] });
  }
  return [...found.values()];
}

/** What of a list of targets names experts' layers of old. */
export interface TranslatedTargets {
  readonly targets: readonly string[];
  readonly parameters: readonly string[];
  /** By how much more rank, and alpha, weights have that are several layers of old in one. */
  readonly factors: ReadonlyMap<string, number>;
}

/**
 * Targets as PEFT 0.21 reads them with transformers 5 (`_convert_peft_config_moe`): what named the layers of experts, wherever else in the
 * model layers are called so, becomes the weights that they are in now. Throws AdapterError where only some of the layers of a weight are named.
 */
export function translated(targets: readonly string[], former: readonly FormerTarget[]): TranslatedTargets {
  const isNamed = (target: string, name: string): boolean => target === name || target.endsWith(`.${name}`);
  const parameters: string[] = [];
  const factors = new Map<string, number>();
  for (const { parameter, names } of former) {
    const present = names.filter((name) => targets.some((target) => isNamed(target, name)));
    if (present.length === 0) continue;
    const missing = names.filter((name) => !present.includes(name));
    if (missing.length > 0)
      throw new AdapterError(
        `targets name ${present.join(" and ")} of the experts and not ${missing.join(" and ")}: both are one weight, ${parameter}. Name all of them.`,
        missing,
      );
    parameters.push(parameter);
    if (names.length > 1) factors.set(parameter, names.length);
  }
  const all = former.flatMap(({ names }) => names);
  return { targets: targets.filter((target) => !all.some((name) => isNamed(target, name))), parameters, factors };
}
