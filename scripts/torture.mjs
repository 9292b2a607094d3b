// Slow: a process for each kill.
// npm run torture: training that is killed at random moments, and runs that lose their disk, folder, output, clock or device.
//
//   npm run torture                              a hundred kills over every method, and every fault, with a new seed
//   npm run torture -- --kills 10 --seed 1       ten kills, of the cases that the seed draws
//   npm run torture -- --only dropout,disk       the cases whose name holds one of the words
//
// A run ends with the bytes of an undisturbed one, or with an error that says what is wrong and leaves what was there. Ends with 3 when one does not.
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { endWithUsage, flagsOf } from "./flags.mjs";
import { randomOf } from "./fuzz/random.mjs";
import { prepare, root } from "./prepare.mjs";

const usage = "npm run torture -- [--kills N] [--seed S] [--workers N] [--only words,of,names]";
const values = flagsOf(
  { kills: { type: "string" }, seed: { type: "string" }, workers: { type: "string" }, only: { type: "string" } },
  usage,
);
/** @param {string | undefined} text @param {number} otherwise */
function countOf(text, otherwise) {
  const count = text === undefined ? otherwise : Number(text);
  if (Number.isInteger(count) && count >= 0) return count;
  return endWithUsage(`${text} is not a whole number.`, usage);
}
const [kills, workers] = [countOf(values.kills, 100), Math.max(1, countOf(values.workers, 2))];
const seed = countOf(values.seed, Date.now() % 1_000_000);
const isChosen = (/** @type {string} */ name) => values.only === undefined || values.only.split(",").some((word) => name.includes(word));

const reports = process.env["LOWRANK_TEST_REPORTS"];
if (reports === undefined) await prepare();
const { methodNames } = await import(new URL("../apps/cli/dist/method.js", import.meta.url).href);
const { faults } = await import("./torture/faults.mjs");
const { killCases, killed } = await import("./torture/kills.mjs");
const { tinyProject } = await import("./torture/project.mjs");

process.stdout.write(`torture with --kills ${kills} --seed ${seed}\n`);
const scratch = realpathSync(mkdtempSync(join(tmpdir(), "lowrank-torture-")));
const started = performance.now();
/** @typedef {{ name: string, kills: number, problem: string | null, skipped: string | undefined, said: string, seconds: number }} Row */
/** @type {Row[]} */
const rows = [];
try {
  const project = await tinyProject(scratch);
  await inTurn([...faultJobs(project), ...killJobs(project)]);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
const failed = rows.filter(({ problem }) => problem !== null);
const skipped = rows.filter((row) => row.skipped !== undefined);
const done = rows.reduce((sum, row) => sum + row.kills, 0);
const passed = rows.length - failed.length - skipped.length;
const minutes = ((performance.now() - started) / 60_000).toFixed(1);
if (reports !== undefined) writeFileSync(join(reports, "torture.json"), JSON.stringify(report()));
process.stdout.write(`\n${done} kills in ${minutes} min with seed ${seed}\n`);
process.stdout.write(`${passed} passed, ${failed.length} failed, ${skipped.length} skipped\n`);
process.exitCode = failed.length > 0 ? 3 : 0;

/** @param {{ model: string, train: string, heldOut: string }} project */
function faultJobs(project) {
  return faults(project)
    .filter(({ name }) => isChosen(name))
    .map(({ name, run }) => async (/** @type {string} */ folder) => ({
      name,
      kills: 0,
      skipped: undefined,
      said: "",
      ...(await run(folder)),
    }));
}

/** Kills shared among cases drawn without repetition, at least two each: what resumes is also killed. @param {{ model: string, train: string, heldOut: string }} project */
function killJobs(project) {
  const random = randomOf(seed, 0);
  const cases = killCases(methodNames, project)
    .filter(({ name }) => isChosen(name))
    .map((one) => ({ one, order: random.next() }))
    .sort((a, b) => a.order - b.order);
  const used = cases.slice(0, Math.max(1, Math.floor(kills / 2)));
  return used
    .map(({ one }, i) => ({ one, share: Math.floor(kills / used.length) + (i < kills % used.length ? 1 : 0), number: i + 1 }))
    .filter(({ share }) => share > 0)
    .map(({ one, share, number }) => async (/** @type {string} */ folder) => {
      const result = await killed(one, share, folder, randomOf(seed, number));
      return { name: one.name, skipped: undefined, said: "", ...result };
    });
}

/** Runs jobs, so many at a time, and prints a row for each. @param {Array<(folder: string) => Promise<Omit<Row, "seconds">>>} jobs */
async function inTurn(jobs) {
  const queue = jobs.map((job, i) => ({ job, folder: join(scratch, String(i)) }));
  const worker = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const start = performance.now();
      mkdirSync(next.folder);
      const row = { ...(await next.job(next.folder)), seconds: (performance.now() - start) / 1000 };
      rows.push(row);
      print(row);
      rmSync(next.folder, { recursive: true, force: true });
    }
  };
  await Promise.all(Array.from({ length: workers }, worker));
}

/** @param {Row} row */
function print({ name, kills: count, problem, skipped: reason, said, seconds }) {
  const verdict = problem !== null ? "FAILED" : reason !== undefined ? "skipped" : "ok";
  const detail =
    problem ?? (reason !== undefined ? reason : count > 0 ? `${count} kills, the same bytes` : `the same bytes${said && `: ${said}`}`);
  process.stdout.write(`${verdict.padEnd(8)}${name.padEnd(32)}${seconds.toFixed(1).padStart(7)} s  ${detail}\n`);
}

/** In vitest's form, for the suite's count. */
function report() {
  const file = { name: join(root, "scripts", "torture.mjs"), startTime: Date.now() - (performance.now() - started), endTime: Date.now() };
  const assertionResults = rows.map(({ name, problem }) => ({
    status: problem === null ? "passed" : "failed",
    fullName: `${name} (seed ${seed})`,
    failureMessages: problem === null ? [] : [problem],
  }));
  return {
    numPassedTests: passed,
    numFailedTests: failed.length,
    numPendingTests: skipped.length,
    testResults: [{ ...file, status: failed.length > 0 ? "failed" : "passed", assertionResults }],
  };
}
