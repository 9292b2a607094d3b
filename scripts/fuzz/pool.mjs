// Child processes with limits of time and memory. One that hangs, dies or takes too much is ended, its mutant counted, and the rest of its
// share given to a new one.
import { fork } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** @typedef {"accepted" | "typed" | "wrong" | "hang" | "crash" | "memory"} Outcome */
/** @typedef {{ number: number, outcome: Outcome, text: string }} Result */
/** @typedef {{ processorSeconds: number, seconds: number, heapMegabytes: number, residentBytes: number }} Limits */
/**
 * @typedef {{
 *   seed: number,
 *   names: readonly string[],
 *   workers: number,
 *   count: number,
 *   until: number,
 *   onResult: (result: Result) => void,
 *   onTick?: (done: number) => void,
 *   program?: string,
 *   limits?: Limits,
 * }} Work
 */

const childProgram = fileURLToPath(new URL("child.mjs", import.meta.url));

/** Processor seconds that one mutant may take, and seconds by the clock, which runs on a busy machine while the process does not. */
const usualLimits = { processorSeconds: 10, seconds: 90, heapMegabytes: 384, residentBytes: 1000 * 2 ** 20 };
const share = 250;
/** @type {Readonly<Record<string, Outcome>>} */
const letters = { a: "accepted", t: "typed", w: "wrong", m: "memory" };

/** Hands numbers out until there are `count` or the time is over. @param {Work} work */
export async function fuzz(work) {
  let next = 0;
  let done = 0;
  const folder = mkdtempSync(join(tmpdir(), "lowrank-fuzz-"));
  /** @param {Result} result */
  const onResult = (result) => {
    done++;
    work.onResult(result);
  };
  const hand = () => {
    if (next >= work.count || Date.now() >= work.until) return null;
    const from = next;
    next = Math.min(work.count, next + share);
    return { from, to: next };
  };
  const timer = setInterval(() => work.onTick?.(done), 5000);
  try {
    await Promise.all(Array.from({ length: work.workers }, (_, i) => worker(join(folder, String(i)), hand, work, onResult)));
  } finally {
    clearInterval(timer);
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * One place in the pool: a process, and after its end another.
 * @param {string} path
 * @param {() => { from: number, to: number } | null} hand
 * @param {Work} work
 * @param {(result: Result) => void} onResult
 */
async function worker(path, hand, { seed, names, until, program = childProgram, limits = usualLimits }, onResult) {
  let child = await start(program, limits);
  for (let range = hand(); range; ) {
    const outcomes = `${path}-${range.from}.outcomes`;
    const wrong = `${path}-${range.from}.wrong`;
    const end = await run(child, limits, { ...range, seed, names, outcomes, wrong });
    const texts = new Map(
      (existsSync(wrong) ? readFileSync(wrong, "utf8") : "")
        .split("\n")
        .filter(Boolean)
        .map((line) => {
          const { number, text } = JSON.parse(line);
          return [number, text];
        }),
    );
    let { from } = range;
    for (const letter of existsSync(outcomes) ? readFileSync(outcomes, "utf8") : "") {
      onResult({ number: from, outcome: letters[letter] ?? "crash", text: texts.get(from) ?? "" });
      from++;
    }
    rmSync(outcomes, { force: true });
    rmSync(wrong, { force: true });
    if (end !== null) {
      if (from < range.to) onResult({ number: from++, ...end });
      child = await start(program, limits);
    }
    range = from < range.to && Date.now() < until ? { from, to: range.to } : hand();
  }
  child.kill("SIGKILL");
}

/** @typedef {import("node:child_process").ChildProcess & { words: string }} Child */

/** A process that has read the corpus. @param {string} program @param {Limits} limits @returns {Promise<Child>} */
function start(program, limits) {
  return new Promise((resolve, reject) => {
    const child = /** @type {Child} */ (
      fork(program, [], {
        execArgv: [`--max-old-space-size=${limits.heapMegabytes}`, "--expose-gc"],
        stdio: ["ignore", "ignore", "pipe", "ipc"],
      })
    );
    child.words = "";
    child.stderr?.on("data", (chunk) => {
      child.words = (child.words + chunk).slice(-4000);
    });
    child.once("message", () => resolve(child));
    child.once("exit", (code) => reject(new Error(`A process of the fuzzer ended with ${code} before it began:\n${child.words}`)));
  });
}

/**
 * Lets a process work through a share. Null when it did; else why it was ended.
 * @param {Child} child
 * @param {Limits} limits
 * @param {import("./child.mjs").Job} job
 * @returns {Promise<{ outcome: "hang" | "crash" | "memory", text: string } | null>}
 */
function run(child, limits, job) {
  return new Promise((resolve) => {
    /** @type {{ outcome: "hang" | "memory", text: string } | null} */
    let verdict = null;
    let progress = { length: -1, at: Date.now(), processor: processorSeconds(child.pid) };
    const watch = setInterval(() => {
      const length = existsSync(job.outcomes) ? statSync(job.outcomes).size : 0;
      const processor = processorSeconds(child.pid);
      if (length !== progress.length) progress = { length, at: Date.now(), processor };
      const resident = residentBytes(child.pid);
      if (processor - progress.processor > limits.processorSeconds || Date.now() - progress.at > 1000 * limits.seconds) {
        verdict = { outcome: "hang", text: `no end after ${(processor - progress.processor).toFixed(1)} s of processor time` };
      } else if (resident > limits.residentBytes) {
        verdict = { outcome: "memory", text: `${(resident / 1e6).toFixed(0)} MB resident` };
      }
      if (verdict) child.kill("SIGKILL");
    }, 100);
    const settle = (/** @type {Awaited<ReturnType<typeof run>>} */ end) => {
      clearInterval(watch);
      child.removeAllListeners("message");
      child.removeAllListeners("close");
      resolve(end);
    };
    child.once("message", () => settle(null));
    child.removeAllListeners("exit");
    // "exit" may come before the last words on stderr are read, which tell a full heap from a crash.
    child.once("close", (code, signal) => {
      const isMemory = /heap out of memory|Array buffer allocation failed/.test(child.words);
      settle(verdict ?? { outcome: isMemory ? "memory" : "crash", text: `ended with ${signal ?? code}\n${child.words}` });
    });
    child.send(job);
  });
}

/** User and system time of a process; its wall-clock time where the system does not say. @param {number | undefined} pid */
function processorSeconds(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return process.platform === "linux" ? 0 : performance.now() / 1000;
  }
}

/** @param {number | undefined} pid */
function residentBytes(pid) {
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]) * 4096;
  } catch {
    return 0;
  }
}
