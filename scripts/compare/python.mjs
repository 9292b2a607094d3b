// The Python that comparisons ask, and the report that they leave for the closing line.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { root } from "../prepare.mjs";

/** Where what comparisons fetch is kept: outside of the repository, because it is hundreds of megabytes and the same for every clone. */
export const cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "lowrank");

/** The Python that the tests against PEFT use. */
const ownPython = join(root, "node_modules/.cache/lowrank/python/bin/python");

/** @param {string} python @param {string} name @param {string} version */
function hasPackage(python, name, version) {
  const check = `import importlib.metadata as m, sys; sys.exit(m.version("${name}") != "${version}")`;
  return spawnSync(python, ["-c", check], { stdio: "ignore" }).status === 0;
}

/**
 * A Python that has a package of this version: one that is there, or a new environment with it from whatever index pip has. A sentence
 * where there is none.
 * @param {string} name  the package
 * @param {string} version
 * @returns {{ python: string } | { reason: string }}
 */
export function pythonWith(name, version) {
  const has = (/** @type {string} */ python) => hasPackage(python, name, version);
  const own = join(cache, `python-${name}-${version}`, "bin", "python");
  const candidates = [process.env["LOWRANK_PYTHON"], ownPython, own, "python3"];
  const found = candidates.find((python) => python !== undefined && has(python));
  if (found !== undefined) return { python: found };
  const folder = dirname(dirname(own));
  mkdirSync(cache, { recursive: true });
  const quiet = /** @type {const} */ ({ stdio: "ignore", timeout: 180_000 });
  if (spawnSync("python3", ["-m", "venv", "--clear", folder], quiet).status !== 0)
    return { reason: "no python3 that makes an environment" };
  const install = spawnSync(own, ["-m", "pip", "install", "--quiet", `${name}==${version}`], quiet);
  return install.status === 0 && has(own) ? { python: own } : { reason: `pip has no index with ${name} ${version}` };
}

/**
 * A Python that has a package of this version already: gigabytes are not fetched for a comparison. A sentence where there is none.
 * @param {string} name  the package
 * @param {string} version
 * @returns {{ python: string } | { reason: string }}
 */
export function installed(name, version) {
  const found = [process.env["LOWRANK_PYTHON"], ownPython].find((python) => python !== undefined && hasPackage(python, name, version));
  return found === undefined ? { reason: `no Python with ${name} ${version}` } : { python: found };
}

/**
 * What a script of this folder answers to requests, as JSON.
 * @param {string} python
 * @param {string} script
 * @param {string} input
 * @param {readonly string[]} [args]
 */
export function ask(python, script, input, args = []) {
  const output = execFileSync(python, [join(root, "scripts/compare", script), ...args], {
    input,
    maxBuffer: 2 ** 30,
    env: { ...process.env, PYTHONUTF8: "1" },
  });
  return JSON.parse(output.toString("utf8"));
}

/**
 * A script of this folder that answers a line of JSON to each line of JSON.
 * @param {string} python
 * @param {string} script
 * @param {NodeJS.ProcessEnv} [env]
 */
export function asking(python, script, env = {}) {
  const child = spawn(python, [join(root, "scripts/compare", script)], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, PYTHONUTF8: "1", ...env },
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    /** @param {object} request @returns {Promise<unknown>} */
    async ask(request) {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      const { value } = await lines.next();
      if (value === undefined) throw new Error(`${script} ended.`);
      return JSON.parse(value);
    },
    /** @returns {Promise<void>} */
    end: () =>
      new Promise((resolve) => {
        child.once("close", () => resolve());
        child.stdin.end();
      }),
  };
}

/**
 * Leaves the counts where the suite's closing line finds them, and says them.
 * @param {string} name  the report's
 * @param {{ passed: number, failed: number, skipped: number }} counts
 * @param {string} note
 */
export function report(name, { passed, failed, skipped }, note) {
  const folder = process.env["LOWRANK_TEST_REPORTS"];
  if (folder !== undefined && existsSync(folder))
    writeFileSync(
      join(folder, `${name}.json`),
      JSON.stringify({ numPassedTests: passed, numFailedTests: failed, numPendingTests: skipped, testResults: [] }),
    );
  process.stdout.write(`${name}: ${passed} equal, ${failed} differ, ${skipped} skipped${note === "" ? "" : `   ${note}`}\n`);
  process.exitCode = failed > 0 ? 1 : 0;
}
