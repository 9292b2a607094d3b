// npm run docs: runs every code block of the documents that is marked to run (see blocks.mjs), so that they stay true.
// Words after it choose the documents whose path holds one of them; --report NAME names the file of counts that a stage of the suite wants.
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { codeBlocks, runBlock } from "./blocks.mjs";
import { prepare, root } from "./prepare.mjs";

const reports = process.env["LOWRANK_TEST_REPORTS"];
if (reports === undefined) await prepare();

const { values, positionals: words } = parseArgs({ allowPositionals: true, options: { report: { type: "string", default: "docs" } } });
const folders = [
  "",
  "docs",
  ...["packages", "apps"].flatMap((folder) => readdirSync(join(root, folder)).map((name) => join(folder, name))),
];
const documents = folders
  .filter((folder) => existsSync(join(root, folder)))
  .flatMap((folder) => readdirSync(join(root, folder)).map((name) => join(folder, name)))
  .filter((path) => path.endsWith(".md") && !path.endsWith("CHANGELOG.md"))
  .filter((path) => words.length === 0 || words.some((word) => path.includes(word)));

const count = { passed: 0, failed: 0 };
/** How long each document took, as test files report it. @type {object[]} */
const times = [];

/** Runs a document's blocks, one after another. @param {string} document */
async function runDocument(document) {
  const blocks = codeBlocks(readFileSync(join(root, document), "utf8"));
  if (blocks.length === 0) return;
  const folder = sandbox();
  const startTime = Date.now();
  /** @type {object[]} */
  const failed = [];
  for (const block of blocks) {
    const started = performance.now();
    const problem = await runBlock(block, folder);
    if (block.kind === "file") continue;
    count[problem === null ? "passed" : "failed"] += 1;
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    process.stdout.write(`${problem === null ? "ok    " : "FAILED"} ${document}:${block.line} (${seconds} s)\n`);
    if (problem === null) continue;
    process.stdout.write(`${problem.replaceAll(/^/gm, "    ")}\n`);
    failed.push({ status: "failed", fullName: `line ${block.line}`, failureMessages: [problem] });
  }
  rmSync(folder, { recursive: true, force: true });
  const status = failed.length > 0 ? "failed" : "passed";
  times.push({ name: join(root, document), status, startTime, endTime: Date.now(), assertionResults: failed });
}

// Two documents at a time: a command uses one core while it starts.
const waiting = [...documents];
await Promise.all(
  Array.from({ length: 2 }, async () => {
    for (let document = waiting.shift(); document !== undefined; document = waiting.shift()) await runDocument(document);
  }),
);

if (reports === undefined) process.stdout.write(`\n${count.passed} passed, ${count.failed} failed, 0 skipped\n`);
else
  writeFileSync(
    join(reports, `${values.report}.json`),
    JSON.stringify({ numPassedTests: count.passed, numFailedTests: count.failed, testResults: times }),
  );
process.exitCode = count.failed > 0 ? 1 : 0;

/** A folder in which the commands of a README find everything that the repository's root has, and leave what they write. */
function sandbox() {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "lowrank-docs-")));
  for (const name of readdirSync(root)) {
    if (name !== "runs" && !name.startsWith("tsconfig") && !name.startsWith(".git")) symlinkSync(join(root, name), join(folder, name));
  }
  return folder;
}
