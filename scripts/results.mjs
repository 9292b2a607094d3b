// What the runs of a stage left: counts, a line for each failed test, and how long each file took.
import { existsSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { root } from "./prepare.mjs";
import { reports } from "./stages.mjs";

/** @typedef {{ passed: number, failed: number, skipped: number }} Count */
/** @typedef {{ file: string, stage: string, seconds: number }} FileTime */
/** @typedef {{ name: string, status: string, message?: string, startTime?: number, endTime?: number, assertionResults: Array<{ status: string, fullName: string, failureMessages?: string[] }> }} FileReport */

/** @type {Count} */
export const nothing = { passed: 0, failed: 0, skipped: 0 };

/**
 * @param {Count} a
 * @param {Count} b
 * @returns {Count}
 */
export function add(a, b) {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped };
}

/**
 * Counts what a command left in a report of vitest's form, or the command itself where it writes none. A test file that fails before its
 * first test, and a command that fails without a failed test, count as one failure each.
 * @param {string} stage
 * @param {string} name  the report's
 * @param {number} code  the command's exit status
 * @param {number} seconds  what the command took
 * @param {boolean} mayBeEmpty  whether no test at all is no failure
 * @returns {{ count: Count, failures: string[], times: FileTime[] }}
 */
export function countOf(stage, name, code, seconds, mayBeEmpty) {
  const path = join(reports, `${name}.json`);
  const whole = [{ file: name, stage, seconds }];
  if (!existsSync(path)) {
    if (code === 0) return { count: { ...nothing, passed: mayBeEmpty && isVitest(stage) ? 0 : 1 }, failures: [], times: whole };
    return { count: { ...nothing, failed: 1 }, failures: [`failed: ${stage}, ${name}: exit status ${code}`], times: whole };
  }
  const report = JSON.parse(readFileSync(path, "utf8"));
  /** @type {FileReport[]} */
  const files = report.testResults ?? [];
  /** @type {string[]} */
  const failures = [];
  let brokenFiles = 0;
  for (const { name: file, status, message, assertionResults } of files) {
    if (status !== "failed") continue;
    const failedTests = assertionResults.filter((test) => test.status === "failed");
    if (failedTests.length === 0) brokenFiles += 1;
    const all = failedTests.length > 0 ? failedTests : [{ fullName: "the file itself", failureMessages: [message ?? ""] }];
    for (const { fullName, failureMessages } of all) {
      const reason = stripVTControlCharacters(failureMessages?.[0] ?? "").split("\n", 1)[0];
      failures.push(`failed: ${stage}, ${relative(root, file)}, ${fullName}: ${reason}`);
    }
  }
  let failed = (report.numFailedTests ?? 0) + brokenFiles;
  if (failed === 0 && code !== 0) {
    failed = 1;
    failures.push(`failed: ${stage}, ${name}: exit status ${code} without a failed test`);
  }
  const skipped = (report.numPendingTests ?? 0) + (report.numTodoTests ?? 0);
  const times = files.map(({ name: file, startTime = 0, endTime = 0 }) => ({
    file: relative(root, file),
    stage,
    seconds: (endTime - startTime) / 1000,
  }));
  return { count: { passed: report.numPassedTests ?? 0, failed, skipped }, failures, times };
}

/** @param {string} stage */
const isVitest = (stage) => !["typecheck", "lint", "docs", "compare", "fuzz", "torture"].includes(stage);

/**
 * The ten slowest files, each with what its line "// Slow: …" says of why.
 * @param {readonly FileTime[]} times
 */
export function slowestLines(times) {
  return [...times]
    .sort((a, b) => b.seconds - a.seconds)
    .slice(0, 10)
    .map(({ file, stage, seconds }) => {
      const why = existsSync(join(root, file)) ? /^\/\/ Slow: (.*)$/m.exec(readFileSync(join(root, file), "utf8"))?.[1] : undefined;
      return `${seconds.toFixed(1).padStart(7)} s  ${stage.padEnd(12)} ${file}${why === undefined ? "" : `: ${why}`}`;
    });
}
