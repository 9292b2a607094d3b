/** A number among the parts of a path: the layer's, an expert's. */
const isNumbered = (parts: readonly string[]): boolean => parts.some((part) => /^\d+$/.test(part));

/**
 * What the model calls the modules that a file calls by paths which begin otherwise (`language_model.model.layers.0…` for `model.layers.0…`):
 * one beginning becomes another, the same for all, and every path then is a module's. Null where a path as it is is a module's, or where no
 * beginning, or more than one, makes them so.
 */
export function ownPaths(paths: readonly string[], modules: ReadonlySet<string>): ((path: string) => string) | null {
  const [first] = paths;
  if (first === undefined || paths.some((path) => modules.has(path))) return null;
  const found = new Map<string, (path: string) => string>();
  for (const module of modules) {
    const swap = beginnings(first, module);
    if (!swap) continue;
    const [from, to] = swap;
    const key = JSON.stringify(swap);
    const own = (path: string): string => (path.startsWith(from) ? to + path.slice(from.length) : path);
    if (!found.has(key) && paths.every((path) => modules.has(own(path)))) found.set(key, own);
  }
  const [only, ...others] = [...found.values()];
  return only && others.length === 0 ? only : null;
}

/** How two paths begin in front of the parts that both end in, where those tell the layer; null where they end differently. */
function beginnings(path: string, module: string): readonly [from: string, to: string] | null {
  const [theirs, own] = [path.split("."), module.split(".")];
  while (theirs.length > 0 && own.length > 0 && theirs.at(-1) === own.at(-1)) {
    theirs.pop();
    own.pop();
  }
  const length = path.split(".").length - theirs.length;
  if (length === 0 || isNumbered(theirs) || isNumbered(own)) return null;
  const start = (parts: readonly string[]): string => parts.map((part) => `${part}.`).join("");
  return [start(theirs), start(own)];
}
