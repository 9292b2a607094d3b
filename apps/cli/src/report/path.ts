import { basename, isAbsolute, relative } from "node:path";

/** A path as a page shows it: from the working folder on where it lies within, else its last part, since pages are passed on and a home folder is nobody's business. */
export function shownPath(path: string, from: string = process.cwd()): string {
  const inside = relative(from, path);
  return inside === "" || inside.startsWith("..") || isAbsolute(inside) ? basename(path) : inside;
}
