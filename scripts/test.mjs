// npm test: everything, on every backend this machine has, from a fresh clone. The last line counts it all.
//
//   npm test                                     all stages
//   npm test -- host cpu                         some of them
//   npm test -- cpu matmul                       in them, the test files whose path holds "matmul"
//   LOWRANK_TEST_STAGES=host,cpu npm test        the same choice, from the environment
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { prepare, root, run, say } from "./prepare.mjs";
import { findVulkan } from "./vulkan.mjs";

const stages = /** @type {const} */ (["typecheck", "lint", "host", "cpu", "panels", "swiftshader", "lavapipe", "life", "docs"]);
/** @typedef {typeof stages[number]} Stage */
/** @typedef {{ passed: number, failed: number, skipped: number }} Count */
/** @typedef {{ name: string, status: string, message?: string, assertionResults: Array<{ status: string, fullName: string, failureMessages?: string[] }> }} FileReport */

/** Stages beyond the list that run only when named. */
const onDemand = ["gpu"];
const words = process.argv.slice(2);
const named = [...words, ...(process.env["LOWRANK_TEST_STAGES"] ?? "").split(",")].filter((word) => isStage(word));
const filters = words.filter((word) => !isStage(word));
const wanted = named.length > 0 ? named : stages;

/** @param {string} word */
function isStage(word) {
  return /** @type {readonly string[]} */ (stages).includes(word) || onDemand.includes(word);
}

const bin = join(root, "node_modules", ".bin");
const reports = join(root, "node_modules", ".cache", "lowrank", "reports");
/** @type {Array<{ stage: string, count: Count, seconds: number, note: string }>} */
const results = [];
/** A line for each failed test: repeated at the end, where the last screen of a long log shows them. @type {string[]} */
const failures = [];

await prepare();
rmSync(reports, { recursive: true, force: true });
mkdirSync(reports, { recursive: true });
// One JSON file of totals for each check; a check that dies before writing one has failed.
process.env["LOWRANK_TEST_REPORTS"] = reports;

for (const stage of wanted) {
  const started = performance.now();
  say(stage);
  const { count, note = "" } = await runStage(stage);
  if (note !== "") say(`${stage}: ${note}`);
  results.push({ stage, count, seconds: (performance.now() - started) / 1000, note });
}

const total = results.reduce((sum, { count }) => add(sum, count), { passed: 0, failed: 0, skipped: 0 });
process.stdout.write("\n");
for (const line of failures) process.stdout.write(`${line}\n`);
if (failures.length > 0) process.stdout.write("\n");
for (const { stage, count, seconds, note } of results) {
  const figures = `${String(count.passed).padStart(5)} passed ${String(count.failed).padStart(4)} failed ${String(count.skipped).padStart(4)} skipped`;
  process.stdout.write(`${stage.padEnd(12)}${figures} ${seconds.toFixed(1).padStart(7)} s${note === "" ? "" : `   ${note}`}\n`);
}
process.stdout.write(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`);
process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0;

/**
 * @param {string} stage
 * @returns {Promise<{ count: Count, note?: string }>}
 */
async function runStage(stage) {
  switch (stage) {
    case "typecheck":
      return { count: verdict(await run(join(bin, "tsc"), ["-p", "tsconfig.test.json"])) };
    case "lint":
      return { count: verdict(await run(join(bin, "biome"), ["check", "--error-on-warnings", "--max-diagnostics=50", "."])) };
    case "docs":
      return { count: await counted(stage, process.execPath, [join(root, "scripts", "docs.mjs"), ...filters], process.env) };
    case "swiftshader":
    case "lavapipe": {
      const found = findVulkan(stage);
      if (typeof found === "string") return { count: { passed: 0, failed: 0, skipped: 1 }, note: `skipped: ${found}` };
      return { count: await vitest(stage), note: found.version };
    }
    default:
      return { count: await vitest(stage) };
  }
}

/** @param {string} project */
function vitest(project) {
  const device = ["host", "panels", "life"].includes(project) ? "cpu" : project;
  const report = ["--reporter=default", "--reporter=json", `--outputFile.json=${join(reports, `${project}.json`)}`];
  const args = ["run", "--project", project, "--passWithNoTests", ...report, ...filters];
  return counted(project, join(bin, "vitest"), args, { ...process.env, LOWRANK_TEST_BACKEND: device });
}

/**
 * Runs a command that leaves a report of vitest's form, and counts it. A test file that fails before its first test, and a command that
 * leaves no report or fails without a failed test, count as one failure each.
 * @param {string} name
 * @param {string} command
 * @param {readonly string[]} args
 * @param {NodeJS.ProcessEnv} env
 * @returns {Promise<Count>}
 */
async function counted(name, command, args, env) {
  const code = await run(command, args, { env, stdio: ["ignore", "inherit", "inherit"] });
  const path = join(reports, `${name}.json`);
  if (!existsSync(path)) return verdict(code === 0 && filters.length > 0 ? 0 : 1);
  const report = JSON.parse(readFileSync(path, "utf8"));
  /** @type {FileReport[]} */
  const files = report.testResults ?? [];
  let brokenFiles = 0;
  for (const { name: file, status, message, assertionResults } of files) {
    if (status !== "failed") continue;
    const failedTests = assertionResults.filter((test) => test.status === "failed");
    if (failedTests.length === 0) brokenFiles += 1;
    const all = failedTests.length > 0 ? failedTests : [{ fullName: "the file itself", failureMessages: [message ?? ""] }];
    for (const { fullName, failureMessages } of all) {
      const reason = stripVTControlCharacters(failureMessages?.[0] ?? "").split("\n", 1)[0];
      failures.push(`failed: ${name}, ${relative(root, file)}, ${fullName}: ${reason}`);
    }
  }
  const skipped = (report.numPendingTests ?? 0) + (report.numTodoTests ?? 0);
  const failed = (report.numFailedTests ?? 0) + brokenFiles;
  return { passed: report.numPassedTests ?? 0, failed: failed === 0 && code !== 0 ? 1 : failed, skipped };
}

/**
 * @param {number} code
 * @returns {Count}
 */
function verdict(code) {
  return code === 0 ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 };
}

/**
 * @param {Count} a
 * @param {Count} b
 * @returns {Count}
 */
function add(a, b) {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped };
}
