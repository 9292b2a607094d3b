// npm test: from a fresh clone, within ten minutes on two cores. npm run test:all: everything. The last line counts it all.
//
//   npm test                                     types, lint, host, cpu, a part of SwiftShader, the commands of a first hour, the READMEs
//   npm run test:all                             that, then packed operands, all of SwiftShader, lavapipe, the other documents, long tests, fuzz, torture
//   npm run test:all -- --rest                   what it adds alone
//   npm test -- host cpu                         some of the stages, of both
//   npm test -- cpu matmul                       in them, the test files whose path holds "matmul"
//   LOWRANK_TEST_STAGES=host,cpu npm test        the same choice, from the environment
//   LOWRANK_GOLDEN_SEED=7 npm test               the draw of another run
//   LOWRANK_TEST_TOTALS=file                     counts in a file, and what it holds already: the closing line is of several runs
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { prepare, run, say } from "./prepare.mjs";
import { add, countOf, nothing, slowestLines } from "./results.mjs";
import { drawnSeed, first, onDemand, reports, rest } from "./stages.mjs";
import { findVulkan } from "./vulkan.mjs";

const known = [...first, ...rest, ...onDemand];
const options = process.argv.slice(2).filter((word) => word.startsWith("--"));
const words = process.argv.slice(2).filter((word) => !word.startsWith("--"));
const unknown = options.filter((option) => option !== "--all" && option !== "--rest");
if (unknown.length > 0) {
  process.stderr.write(
    `${unknown.join(" ")}: there is no such option. Use --all or --rest, stages, and parts of the paths of test files.\n`,
  );
  process.exit(2);
}
const isStage = (/** @type {string} */ word) => known.some(({ name }) => name === word);
const named = [...words, ...(process.env["LOWRANK_TEST_STAGES"] ?? "").split(",")].filter(isStage);
const filters = words.filter((word) => !isStage(word));
const half = options.includes("--rest") ? rest : options.includes("--all") ? [...first, ...rest] : first;
const wanted = named.length > 0 ? known.filter(({ name }) => named.includes(name)) : half;

/** What earlier runs counted, and the seed of their draw. */
const totalsFile = process.env["LOWRANK_TEST_TOTALS"];
/** @type {{ seed: number, count: import("./results.mjs").Count, failures: string[] }} */
const before =
  totalsFile !== undefined && existsSync(totalsFile)
    ? JSON.parse(readFileSync(totalsFile, "utf8"))
    : { seed: drawnSeed(), count: nothing, failures: [] };
const { seed } = before;

/** @type {Array<{ stage: string, count: import("./results.mjs").Count, seconds: number, note: string }>} */
const results = [];
/** A line for each failed test: repeated at the end, where the last screen of a long log shows them. */
const failures = [...before.failures];
/** @type {import("./results.mjs").FileTime[]} */
const times = [];

await prepare();
rmSync(reports, { recursive: true, force: true });
mkdirSync(reports, { recursive: true });
// One JSON file of totals for each check; a check that dies before writing one has failed.
process.env["LOWRANK_TEST_REPORTS"] = reports;

/** Runs a stage and keeps what it counted. @param {import("./stages.mjs").Stage} stage */
async function runStage(stage) {
  const started = performance.now();
  const found = stage.vulkan && findVulkan(stage.vulkan);
  const isDrawn = stage.vulkan === "swiftshader" && named.length === 0;
  say(`${stage.name}${isDrawn ? `, goldens drawn with LOWRANK_GOLDEN_SEED=${seed}` : ""}`);
  let [count, note] = [nothing, ""];
  if (typeof found === "string") {
    count = { ...nothing, skipped: 1 };
    note = `skipped: ${found}`;
  } else {
    note = isDrawn ? `seed ${seed}` : (found?.version ?? "");
    for (const { name, command, args, env } of stage.runs({ filters, seed, isWhole: named.length > 0 })) {
      const start = performance.now();
      const code = await run(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "inherit", "inherit"] });
      const counted = countOf(stage.name, name, code, (performance.now() - start) / 1000, filters.length > 0);
      count = add(count, counted.count);
      failures.push(...counted.failures);
      times.push(...counted.times);
    }
  }
  if (note !== "") say(`${stage.name}: ${note}`);
  results.push({ stage: stage.name, count, seconds: (performance.now() - started) / 1000, note });
}

/** Stages that run at a time. @type {[import("./stages.mjs").Stage, ...import("./stages.mjs").Stage[]][]} */
const groups = [];
for (const stage of wanted) {
  const other = groups.find(([{ name }]) => name === stage.beside);
  if (other) other.push(stage);
  else groups.push([stage]);
}
for (const group of groups) await Promise.all(group.map(runStage));

const here = results.reduce((sum, { count }) => add(sum, count), nothing);
const total = add(before.count, here);
if (totalsFile !== undefined) writeFileSync(totalsFile, JSON.stringify({ seed, count: total, failures }));
process.stdout.write("\nThe ten slowest files:\n");
for (const line of slowestLines(times)) process.stdout.write(`${line}\n`);
process.stdout.write("\n");
for (const line of failures) process.stdout.write(`${line}\n`);
if (failures.length > 0) process.stdout.write("\n");
for (const { stage, count, seconds, note } of results) {
  const figures = `${String(count.passed).padStart(5)} passed ${String(count.failed).padStart(4)} failed ${String(count.skipped).padStart(4)} skipped`;
  process.stdout.write(`${stage.padEnd(12)}${figures} ${seconds.toFixed(1).padStart(7)} s${note === "" ? "" : `   ${note}`}\n`);
}
process.stdout.write(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`);
process.exitCode = here.failed > 0 || here.passed === 0 ? 1 : 0;
