import { basename, delimiter, dirname, relative } from "node:path";
import { isMainThread, workerData } from "node:worker_threads";
import { shellWord } from "./terminal/shell-word.js";

/** What says how the command line was started. */
export interface Started {
  /** The program's file as it was called, not where a link leads. */
  readonly path: string;
  readonly folder: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** How the command line is called again from the same shell: as it was typed. */
export function programOf({ path, folder, env }: Started): string {
  if (env["npm_command"] !== undefined) return "npx lowrank";
  const near = relative(folder, path);
  const shown = near.startsWith("..") ? path : near;
  if (/\.[cm]?js$/.test(path)) return `node ${shellWord(shown)}`;
  if ((env["PATH"] ?? "").split(delimiter).includes(dirname(path))) return basename(path);
  return shellWord(shown.includes("/") ? shown : `./${shown}`);
}

/** What the main thread was started as; threads are told. */
export function startedPath(): string {
  if (isMainThread) return process.argv[1] ?? "lowrank";
  const data = workerData as { readonly program?: string } | null; // what `launch` gives, where it started this thread
  return data?.program ?? "lowrank";
}

/** How this command line is called again, for hints. */
export function program(): string {
  return programOf({ path: startedPath(), folder: process.cwd(), env: process.env });
}
