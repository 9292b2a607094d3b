import { existsSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { tellMainThread } from "./main-thread.js";

/**
 * What must not stay when a command is ended before it is done: a file, what a folder did not hold before, or the temporary files of a
 * folder that is otherwise whole at any moment.
 */
export type Leftover =
  | { readonly what: "file"; readonly path: string }
  | { readonly what: "contents"; readonly path: string; readonly kept: readonly string[]; readonly wasThere: boolean }
  | { readonly what: "temporaries"; readonly path: string };

/** Names that `writeFileAtomic` gives to files that are not whole yet. */
const temporaryName = /^\..+\.tmp$/;

/**
 * Notes what is removed if the process ends before the command does: by a second Ctrl-C, or by the first where there is no run to save. This
 * is the one place for that. Nothing is removed when the command returns or fails, and nothing can be after SIGKILL.
 */
export function removeIfEnded(path: string, what: Leftover["what"]): void {
  const wasThere = existsSync(path);
  const leftover: Leftover = what === "contents" ? { what, path, kept: wasThere ? readdirSync(path) : [], wasThere } : { what, path };
  tellMainThread({ kind: "leftover", leftover });
}

/** Removes what a command that was ended has left. */
export function removeLeftovers(leftovers: readonly Leftover[]): void {
  for (const leftover of leftovers) {
    const { path } = leftover;
    try {
      if (leftover.what === "file") {
        rmSync(path, { force: true });
        continue;
      }
      if (!existsSync(path)) continue;
      for (const name of readdirSync(path)) {
        if (leftover.what === "temporaries" ? temporaryName.test(name) : !leftover.kept.includes(name))
          rmSync(join(path, name), { force: true, recursive: true });
      }
      if (leftover.what === "contents" && !leftover.wasThere) rmdirSync(path);
    } catch (error) {
      process.stderr.write(`${path} could not be cleared: ${error instanceof Error ? error.message : String(error)}\n`);
    }
  }
}
