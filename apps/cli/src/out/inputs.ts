import { readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";

/** Something that a command reads. */
export interface Input {
  /** What errors call it: its flag, or what else it is. */
  readonly name: string;
  readonly path: string;
}

/** What the flags of a command that say so name to be read, and its arguments. */
export function inputsOf(flags: Flags, values: Readonly<Record<string, unknown>>, positionals: readonly string[] = []): Input[] {
  const named = Object.entries(flags).flatMap(([name, flag]): Input[] => {
    const value = values[name];
    if (!("path" in flag) || flag.path !== "read" || value === undefined) return [];
    return [value].flat().map((path) => ({ name: `--${name}`, path: String(path) }));
  });
  return [...named, ...positionals.map((path) => ({ name: "an argument", path }))];
}

/** Which file or folder a path leads to, whatever it is called: two paths with the same lead to the same. */
async function identityOf(path: string): Promise<string | null> {
  const info = await stat(path, { bigint: true }).catch(() => null);
  if (!info) return null;
  // File systems without numbers of their own say 0.
  return info.ino === 0n ? await realpath(path) : `${info.dev} ${info.ino}`;
}

/**
 * Throws UsageError where writing to `out` would change an input: it is one, by whatever name, or holds one where the command writes.
 * `writes` are the names in the folder that the command may write, or all of them; for a file there are none.
 */
export async function refuseInputs(out: Input, inputs: readonly Input[], writes: readonly string[] | "all"): Promise<void> {
  const own = await identityOf(out.path);
  const written = new Map<string, string>();
  for (const name of writes === "all" ? [] : writes) {
    const identity = await identityOf(join(out.path, name));
    if (identity) written.set(identity, name);
  }
  for (const { name, path } of inputs) {
    const is = await identityOf(path);
    if (resolve(path) === resolve(out.path) || (own !== null && own === is))
      throw new UsageError(`${out.name} is ${out.path}, which is read as well (${name}). Give another ${out.name}.`);
    if (is === null) continue;
    for (const { at, isLink } of [{ at: path, isLink: true }, ...(await entriesOf(path))]) {
      if (!isLink && written.size === 0) continue;
      const identity = await identityOf(at);
      const child = (identity && written.get(identity)) ?? (isLink && own && identity && (await childBelow(own, at)));
      if (child && ((identity && written.has(identity)) || writes === "all" || writes.includes(child)))
        throw new UsageError(
          `${name} is ${path}, ${at === path ? "" : `whose ${basename(at)} leads to ${out.path}, `}and ${join(out.path, child)} may be written over. Give another ${out.name}.`,
        );
    }
  }
}

/** What lies in a folder: its files may be links to elsewhere. Empty for a file. */
async function entriesOf(path: string): Promise<readonly { readonly at: string; readonly isLink: boolean }[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  return entries.map((entry) => ({ at: join(path, entry.name), isLink: entry.isSymbolicLink() }));
}

/** The name in the folder of this identity below which a path lies; null where it lies elsewhere. */
async function childBelow(folder: string, path: string): Promise<string | null> {
  let at = await realpath(path);
  for (let parent = dirname(at); parent !== at; at = parent, parent = dirname(at))
    if ((await identityOf(parent)) === folder) return basename(at);
  return null;
}
