// Commands that something happens to, and what they leave.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { root } from "../prepare.mjs";

const program = join(root, "apps", "cli", "bin", "lowrank.js");
/** A command that has not ended by then hangs. */
const hangMs = 180_000;

/** @typedef {{ code: number | null, output: string, ms: number, hung: boolean }} Outcome  code: null where a signal ended it */
/** @typedef {{ killAfterMs?: number, env?: NodeJS.ProcessEnv, nodeArgs?: readonly string[], when?: () => boolean, happen?: (child: import("node:child_process").ChildProcess) => void }} Fate  happen: once, as soon as `when` holds */

/**
 * @param {readonly string[]} args
 * @param {Fate} [fate]
 * @returns {Promise<Outcome>}
 */
export function command(args, { killAfterMs, env = {}, nodeArgs = [], when, happen } = {}) {
  return new Promise((resolve) => {
    const start = performance.now();
    const child = spawn(process.execPath, [...nodeArgs, program, ...args], {
      env: { ...process.env, LOWRANK_DEBUG: undefined, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [output, hung] = ["", false];
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk) => {
        output += chunk;
      });
      stream.on("error", () => {});
    }
    const timers = [
      setTimeout(() => {
        hung = true;
        child.kill("SIGKILL");
      }, hangMs),
    ];
    if (killAfterMs !== undefined) timers.push(setTimeout(() => child.kill("SIGKILL"), killAfterMs));
    const look = setInterval(() => {
      if (!when?.()) return;
      clearInterval(look);
      happen?.(child);
    }, 2);
    // Not "close": pipes that were closed here, or that a grandchild holds, must not decide.
    child.on("exit", (code) => {
      clearInterval(look);
      for (const timer of timers) clearTimeout(timer);
      setTimeout(() => resolve({ code, output, ms: performance.now() - start, hung }), 20);
    });
  });
}

/** What of a run must be the same, whatever happened on the way: weights and configurations, and the losses that a comparison found. */
const kept = /^(adapter_model\.safetensors|adapter_config\.json|model\.safetensors|config\.json)$/;

/**
 * A digest of each file of a run's folder that must be the same.
 * @param {string} folder
 * @returns {Record<string, string>}
 */
export function resultOf(folder) {
  /** @type {Record<string, string>} */
  const found = {};
  const digest = (/** @type {string | Buffer} */ bytes) => createHash("sha256").update(bytes).digest("hex").slice(0, 16);
  const walk = (/** @type {string} */ place) => {
    for (const entry of readdirSync(place, { withFileTypes: true })) {
      const path = join(place, entry.name);
      if (entry.isDirectory()) walk(path);
      else if (kept.test(entry.name)) found[relative(folder, path)] = digest(readFileSync(path));
      else if (entry.name.endsWith(".json") && !entry.name.startsWith(".")) {
        const { evalLoss } = JSON.parse(readFileSync(path, "utf8"));
        if (evalLoss !== undefined) found[relative(folder, path)] = String(evalLoss);
      }
    }
  };
  if (existsSync(folder)) walk(folder);
  return found;
}

/**
 * What differs between two results; null where nothing does, and there is something.
 * @param {Record<string, string>} got
 * @param {Record<string, string>} wanted
 */
export function differenceOf(got, wanted) {
  if (Object.keys(wanted).length === 0) return "the undisturbed run left no result";
  for (const name of new Set([...Object.keys(wanted), ...Object.keys(got)]))
    if (got[name] !== wanted[name]) return `${name} is ${got[name] ?? "missing"} instead of ${wanted[name] ?? "missing"}`;
  return null;
}

/** What is wrong with how a command ended; null for 0, and where `orTyped` for an error that names a mistake of the input. @param {Outcome} outcome @param {boolean} [orTyped] */
export function problemOf({ code, output, hung }, orTyped = false) {
  if (hung) return `no end after ${hangMs / 1000} s`;
  if (code === 0) return null;
  if (orTyped && code === 2 && output.includes("error: ") && !/^\s+at /m.test(output)) return null;
  return `exit status ${code}: ${output.trim().split("\n").slice(-3).join(" | ")}`;
}
