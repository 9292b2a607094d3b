// The stages of the suite: what `npm test` runs, what `npm run test:all` adds, and the command of each.
import { randomInt } from "node:crypto";
import { join } from "node:path";
import { root } from "./prepare.mjs";

/**
 * @typedef {{ name: string, command: string, args: readonly string[], env?: NodeJS.ProcessEnv }} Run  its report is NAME.json
 * @typedef {{ name: string, runs: (choice: Choice) => readonly Run[], vulkan?: "swiftshader" | "lavapipe", beside?: string }} Stage
 *   beside: the stage that it runs beside, where that runs too, because it leaves a core idle
 * @typedef {{ filters: readonly string[], seed: number, isWhole: boolean }} Choice
 *   filters: parts of the paths of test files; isWhole: a stage that is shared between both halves runs whole
 */

/** A seed for what is drawn: LOWRANK_GOLDEN_SEED, else a new one. */
export const drawnSeed = () => Number(process.env["LOWRANK_GOLDEN_SEED"] ?? randomInt(1_000_000));

/** What SwiftShader runs in the first half: the table of operations, the gradients, and of the files of goldens one case a method, and of a third of the kinds of families. */
const shadersFirst = ["packages/tensor/test/ops.test.ts", "packages/autograd/test/vjp.test.ts"];
const goldenFiles = [
  "test/goldens.test.ts",
  "test/families.test.ts",
  "test/methods/lora.test.ts",
  "test/methods/tuners.test.ts",
  "test/methods/prompt-goldens.test.ts",
];

/** What compares files and their numbers, whatever device computed them: the cpu is enough, and once, with packed operands, in the second half. */
const filesAlone = ["test/gguf-*.test.ts", "test/merged*.test.ts", "packages/models/test/checkpoint/quantize.test.ts"];

/** What the cpu runs in the second half alone, with packed operands: those, and each type of block by each count of rows. */
const withPanels = [...filesAlone, "packages/tensor/test/blocks/products.test.ts", "packages/tensor/test/blocks/packed.test.ts"];

/**
 * Of tables of whole models one row in so many, drawn by the seed: where a software adapter compiles a hundred shaders for each, and where the cpu has
 * run them all before.
 */
const share = { panels: 3, swiftshader: 5, lavapipe: 8 };

const bin = join(root, "node_modules", ".bin");
const script = (/** @type {string} */ name) => join(root, "scripts", name);

/**
 * @param {string} name  the report's
 * @param {string} project  several are parted by commas
 * @param {readonly string[]} filters
 * @param {{ excluded?: readonly string[], env?: NodeJS.ProcessEnv }} [more]
 * @returns {Run}
 */
function vitest(name, project, filters, { excluded = [], env = {} } = {}) {
  const [leading = project] = project.split(",");
  const device = ["host", "panels", "life", "long"].includes(leading) ? "cpu" : leading;
  const report = ["--reporter=default", "--reporter=json", `--outputFile.json=${join(reports, `${name}.json`)}`];
  const projects = project.split(",").flatMap((each) => ["--project", each]);
  const args = ["run", ...projects, "--passWithNoTests", ...report, ...filters];
  return { name, command: join(bin, "vitest"), args, env: { LOWRANK_TEST_BACKEND: device, LOWRANK_TEST_EXCLUDE: excluded.join(), ...env } };
}

/** Where the reports of vitest's form lie. */
export const reports = join(root, "node_modules", ".cache", "lowrank", "reports");

/** @param {string} name @returns {Stage} */
const tests = (name) => ({ name, runs: ({ filters }) => [vitest(name, name, filters)] });

/**
 * The code blocks of the documents whose path holds a word.
 * @param {string} name
 * @param {readonly string[]} words
 * @returns {Run}
 */
const documents = (name, words) => ({ name, command: process.execPath, args: [script("docs.mjs"), "--report", name, ...words] });

/** `npm test`. @type {readonly Stage[]} */
export const first = [
  { name: "typecheck", runs: () => [{ name: "typecheck", command: join(bin, "tsc"), args: ["-p", "tsconfig.test.json"] }] },
  {
    name: "lint",
    beside: "typecheck",
    runs: () => [{ name: "lint", command: join(bin, "biome"), args: ["check", "--error-on-warnings", "--max-diagnostics=50", "."] }],
  },
  { name: "host", runs: ({ filters }) => [vitest("host", "host,alone", filters)] },
  {
    name: "cpu",
    runs: ({ filters, isWhole }) => [vitest("cpu", "cpu", filters, { excluded: isWhole || filters.length > 0 ? [] : withPanels })],
  },
  {
    name: "swiftshader",
    vulkan: "swiftshader",
    runs({ filters, seed, isWhole }) {
      if (isWhole) return [vitest("swiftshader", "swiftshader", filters)];
      const env = { LOWRANK_GOLDENS: "drawn", LOWRANK_GOLDEN_SEED: String(seed) };
      return [vitest("swiftshader", "swiftshader", filters.length > 0 ? filters : [...shadersFirst, ...goldenFiles], { env })];
    },
  },
  tests("life"),
  { name: "docs", runs: ({ filters, isWhole }) => [documents("docs", isWhole || filters.length > 0 ? filters : ["README.md"])] },
];

/** What `npm run test:all` adds. @type {readonly Stage[]} */
export const rest = [
  {
    name: "panels",
    runs({ filters, seed, isWhole }) {
      const env = { LOWRANK_GOLDEN_SEED: String(seed), LOWRANK_TEST_SHARE: String(isWhole ? 1 : share.panels) };
      return [vitest("panels", "panels", filters, { env })];
    },
  },
  {
    name: "swiftshader+",
    vulkan: "swiftshader",
    runs({ filters, seed, isWhole }) {
      const env = {
        LOWRANK_GOLDENS: "rest",
        LOWRANK_GOLDEN_SEED: String(seed),
        LOWRANK_TEST_SHARE: String(isWhole ? 1 : share.swiftshader),
      };
      return [vitest("swiftshader+", "swiftshader", filters, { excluded: [...shadersFirst, ...filesAlone], env })];
    },
  },
  {
    name: "lavapipe",
    vulkan: "lavapipe",
    runs({ filters, seed, isWhole }) {
      const env = { LOWRANK_GOLDEN_SEED: String(seed), LOWRANK_TEST_SHARE: String(isWhole ? 1 : share.lavapipe) };
      return [vitest("lavapipe", "lavapipe,lavapipe-width", filters, { excluded: filters.length > 0 ? [] : filesAlone, env })];
    },
  },
  { name: "docs+", runs: ({ filters }) => [documents("docs+", filters.length > 0 ? filters : ["docs/"])] },
  tests("long"),
  {
    // Of what is compared with llama.cpp two models of seven: all of them take four minutes.
    name: "compare",
    runs: () =>
      [
        ["compare-templates"],
        ["compare-tokenizers"],
        ["compare-gguf", "--texts", "100", "qwen3", "llama2"],
        ["compare-masks"],
        ["compare-configs", "--share", "4", "--count", "1"],
        ["compare-exports", "llama-tied", "qwen3"],
      ].map(([name = "", ...args]) => ({
        name,
        command: process.execPath,
        args: [script(`${name}.mjs`), ...args],
      })),
  },
  {
    name: "fuzz",
    beside: "compare",
    runs: () =>
      [
        ["--minutes", "1", "--seed", "1"],
        ["--minutes", "0.5"],
      ].map((args, i) => ({
        name: `fuzz-${i}`,
        command: process.execPath,
        args: [script("fuzz.mjs"), ...args],
      })),
  },
  {
    name: "torture",
    beside: "compare",
    runs: () => [{ name: "torture", command: process.execPath, args: [script("torture.mjs"), "--kills", "10"] }],
  },
];

/** What runs only when named: whatever adapter the machine has. @type {readonly Stage[]} */
export const onDemand = [tests("gpu")];
