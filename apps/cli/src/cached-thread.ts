// The bundle's thread.js: thread.ts and all that it stands on, which are one file there, with V8's code of it from the user's cache.
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import { workerData } from "node:worker_threads";
import { cachedProgram, codeFolder } from "./code-cache.js";
import type { ThreadData } from "./messages.js";

/** A command that takes longer is over its start, and V8 forgets code that is not run any more. */
const startMs = 10_000;

/** What scripts/cli-bundle.mjs makes of thread.ts. */
type CommonJs = (
  exports: object,
  require: NodeJS.Require,
  module: object,
  filename: string,
  folder: string,
  importModule: (name: string) => Promise<unknown>,
) => void;

/**
 * How long JavaScript runs, in bytes of V8's bytecode, before V8 optimises it; its own is a sixth. Most of what a command runs it runs for a second: planned
 * and compiled, it is WebAssembly and WGSL that take the time. The compiler's thread took a quarter of `lowrank plan`'s processor time.
 */
const interruptBudget = 400_000;

// Not before the imports above: what of Node itself is loaded under other flags than its own is compiled anew. Only for Node 20, whose V8 is
// 11.3: later ones complain of a flag that they do not have any more.
if (Number.parseFloat(process.versions.v8) < 11.4) {
  setFlagsFromString(`--interrupt-budget=${interruptBudget}`);
  // The cpu device sets it; compiled code is kept for the flags that V8 has when the program is compiled.
  setFlagsFromString("--experimental-wasm-relaxed-simd");
}

const path = fileURLToPath(new URL("./program.cjs", import.meta.url));
const [command = ""] = (workerData as ThreadData).args; // what `launch` gives
const program = cachedProgram({
  path,
  use: command,
  folder: /^[a-z-]{1,30}$/.test(command) ? codeFolder() : null,
});
const module = { exports: {} };
const start = program.script.runInThisContext() as CommonJs;
start(module.exports, createRequire(path), module, path, dirname(path), (name) => import(name));
const { ended, startedCommand } = module.exports as typeof import("./thread.js");

const timer = setTimeout(() => program.keep(), startMs).unref();
await ended;
clearTimeout(timer);
// One that was refused, or only said its help, compiled next to nothing.
if (startedCommand() === command && process.exitCode === 0) program.keep();
