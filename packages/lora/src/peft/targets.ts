import * as z from "zod/mini";
import { AdapterError } from "../errors.js";
import type { TargetOptions } from "../targeting/match.js";
import type { PeftFields } from "./fields.js";

/** `target_modules`. PEFT writes "all-linear" and the family's defaults as the names that they stand for. */
export function targetModules(targets: TargetOptions["targets"], places: ReadonlyMap<string, unknown>): readonly string[] | string {
  if (Array.isArray(targets)) return sorted(targets as readonly string[]);
  if (targets instanceof RegExp) return targets.source;
  if (typeof targets === "string" && targets.toLowerCase() !== "all-linear") return targets;
  return sorted([...places.keys()].map((name) => name.slice(name.lastIndexOf(".") + 1)));
}

/** A list of names as PEFT writes it, null where there is none, and a regular expression as it is. */
export function namesOrNull(names: readonly string[] | string | undefined): readonly string[] | string | null {
  return names === undefined ? null : typeof names === "string" ? names : sorted(names);
}

/**
 * `exclude_modules` of an adapter whose model is a part of a larger one, as the text model below `path` is of one that sees as well: the rest
 * is excluded too, whose layers may have the targets' names. `roots` are the first parts of other names that the model has.
 */
export function excludingRest(exclude: unknown, path: string, roots: readonly string[]): string {
  const rest = `(?!${[path, ...roots.map((root) => `${root}.`)].map(escaped).join("|")}).*`;
  if (typeof exclude === "string") return exclude.startsWith(rest) ? exclude : `${rest}|${exclude}`;
  const names = Array.isArray(exclude) ? exclude.map((name) => escaped(String(name))) : [];
  return names.length === 0 ? rest : `${rest}|(.*\\.)?(${names.join("|")})`;
}

function escaped(name: string): string {
  return name.replaceAll(".", "\\.");
}

/** `layers_to_transform` and `layers_pattern`. */
export function layerFields({ layers, layersPattern }: TargetOptions): Readonly<Record<string, unknown>> {
  return { layers_pattern: layersPattern ?? null, layers_to_transform: layers ?? null };
}

/** Takes the fields that choose modules, those of them that a configuration has. Throws AdapterError where none is targeted. */
export function takeTargets(fields: PeftFields): TargetOptions {
  const targets = fields.takeNames("target_modules");
  if (targets === undefined)
    throw new AdapterError(`${fields.file}: target_modules is missing. Name the adapted layers there.`, ["target_modules"]);
  const exclude = fields.takeNames("exclude_modules");
  const layers = fields.take<readonly number[] | number | undefined>(
    "layers_to_transform",
    z.union([z.int(), z.array(z.int())]),
    "a number or a list of numbers",
    undefined,
  );
  const layersPattern = fields.takeNames("layers_pattern");
  return {
    targets,
    ...(exclude !== undefined && exclude.length > 0 && { exclude }),
    ...(layers !== undefined && { layers }),
    ...(layersPattern !== undefined && layersPattern.length > 0 && { layersPattern }),
  };
}

function sorted(names: readonly string[]): readonly string[] {
  return [...new Set(names)].sort();
}
