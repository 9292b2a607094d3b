// What every root command does first: install what the lock file says, if it is not there yet, and build.
// Everything is said on stderr, so that a command's stdout stays its own.
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));

/** Installs and builds; ends the process with a message where one of them fails. */
export async function prepare() {
  const missing = staleness();
  if (missing !== null) {
    say(`installing (${missing})`);
    await step("npm ci", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
  }
  say("building");
  await step("npm run build", ["run", "--silent", "build"]);
}

/**
 * Runs a command in the repository's root, its standard streams passed through; resolves to its exit status.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ stdio?: import("node:child_process").StdioOptions, env?: NodeJS.ProcessEnv, cwd?: string }} [options]
 * @returns {Promise<number>}
 */
export function run(command, args, { stdio = "inherit", env = process.env, cwd = root } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio, shell: process.platform === "win32" });
    child.on("error", (error) => {
      say(`${command}: ${error.message}`);
      resolve(127);
    });
    child.on("close", (code, signal) => resolve(code ?? (signal === "SIGINT" ? 130 : 1)));
  });
}

/** @param {string} text */
export function say(text) {
  process.stderr.write(`\u2500\u2500 ${text}\n`);
}

/**
 * @param {string} name
 * @param {readonly string[]} args
 */
async function step(name, args) {
  const code = await run("npm", args, {
    stdio: ["ignore", 2, 2],
    env: { ...process.env, TURBO_TELEMETRY_DISABLED: "1", DO_NOT_TRACK: "1" },
  });
  if (code === 0) return;
  say(`${name} failed with status ${code}.`);
  process.exit(1);
}

/** Why the installed packages are not those of the lock file; null where they are. */
function staleness() {
  const installed = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(installed)) return "nothing is installed yet";
  const have = packagesOf(installed);
  for (const [path, { version, optional, link }] of Object.entries(packagesOf(join(root, "package-lock.json")))) {
    if (!path.includes("node_modules/") || link === true) continue;
    const found = have[path];
    if (found === undefined ? optional !== true : found.version !== version) return `${path} is not ${version}`;
  }
  return null;
}

/**
 * @param {string} file
 * @returns {Record<string, { version?: string, optional?: boolean, link?: boolean }>}
 */
function packagesOf(file) {
  return JSON.parse(readFileSync(file, "utf8")).packages;
}
