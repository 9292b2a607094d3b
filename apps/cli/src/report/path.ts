import { basename, isAbsolute, relative } from "node:path";
import { isAddress } from "@lowrank/tensor";

/** A path as a page or a card shows it: from the working folder on where it lies within, else its last part, since both are passed on and a home folder is nobody's business. Addresses, and names on the hub, stay. */
export function shownPath(path: string, from: string = process.cwd()): string {
  if (isAddress(path)) return path;
  const inside = relative(from, path);
  return inside === "" || inside.startsWith("..") || isAbsolute(inside) ? basename(path) : inside;
}
