// npm run fuzz: damaged files of every kind for every reader, in child processes with limits of time and memory.
//
//   npm run fuzz                                   three minutes with a new seed
//   npm run fuzz -- --minutes 3 --seed 1           three minutes with a fixed one
//   npm run fuzz -- --count 200000                 so many mutants, however long they take
//   npm run fuzz -- --only template,adapter        some of the readers
//   npm run fuzz -- --seed 7 --replay 1234         one mutant again, here, with its error in full (with the same --only)
//
// Ends with 3 when a mutant was answered with anything but its value or an error that names what is wrong with the file. Each of those lies
// in node_modules/.cache/lowrank/fuzz, in a folder for each seed, with the command that repeats it.
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join, relative } from "node:path";
import { endWithUsage, flagsOf } from "./flags.mjs";
import { prepare, root } from "./prepare.mjs";

const names = ["safetensors", "gguf", "gguf-model", "config", "index", "tokenizer", "template", "adapter", "rows", "state", "metrics"];
const columns = /** @type {const} */ (["accepted", "typed", "wrong", "hang", "crash", "memory"]);
/** Failures of one reader that are kept as files; the others are counted. */
const keptFailures = 20;

const usage = `npm run fuzz -- [--minutes N] [--count N] [--seed S] [--only ${names.join(",")}] [--workers N] [--replay N]`;
const values = flagsOf(
  {
    minutes: { type: "string" },
    count: { type: "string" },
    seed: { type: "string" },
    only: { type: "string" },
    workers: { type: "string" },
    replay: { type: "string" },
  },
  usage,
);

/** @param {string} name @param {string | undefined} text @param {number} otherwise */
function numberOf(name, text, otherwise) {
  const value = text === undefined ? otherwise : Number(text);
  if (!(value >= 0)) endWithUsage(`--${name} is ${text}, not a number.`, usage);
  return value;
}

const seed = numberOf("seed", values.seed, Date.now() % 1_000_000);
const chosen = values.only?.split(",") ?? names;
for (const name of chosen) if (!names.includes(name)) endWithUsage(`--only ${name}: there is no such reader.`, usage);
const count = numberOf("count", values.count, Number.POSITIVE_INFINITY);
const minutes = numberOf("minutes", values.minutes, count === Number.POSITIVE_INFINITY ? 3 : Number.POSITIVE_INFINITY);
const workers = Math.max(1, numberOf("workers", values.workers, Math.min(4, availableParallelism())));

await prepare();

if (values.replay !== undefined) {
  await replay(numberOf("replay", values.replay, 0));
} else {
  const { fuzz } = await import("./fuzz/pool.mjs");
  const { mutantOf, readerOf } = await import("./fuzz/readers.mjs");
  // One run leaves the failures of another where they are.
  const folder = join(root, "node_modules", ".cache", "lowrank", "fuzz", `seed-${seed}`);
  rmSync(folder, { recursive: true, force: true });
  const table = new Map(chosen.map((name) => [name, new Map(columns.map((column) => [column, 0]))]));
  const start = Date.now();
  await fuzz({
    seed,
    names: chosen,
    workers,
    count,
    until: start + minutes * 60_000,
    onTick: (done) => process.stderr.write(`${done} mutants in ${Math.round((Date.now() - start) / 1000)} s\n`),
    onResult({ number, outcome, text }) {
      const reader = readerOf(seed, number, chosen);
      const row = table.get(reader);
      const failed = columns.slice(2).reduce((sum, column) => sum + (row?.get(column) ?? 0), 0);
      row?.set(outcome, (row.get(outcome) ?? 0) + 1);
      if (outcome === "accepted" || outcome === "typed" || failed >= keptFailures) return;
      const { sample, path, files } = mutantOf(seed, number, chosen);
      const place = join(folder, `${reader}-${outcome}-${number}`);
      mkdirSync(place, { recursive: true });
      for (const [name, bytes] of files) writeFileSync(join(place, name.replace("m/", "")), bytes);
      const again = `npm run fuzz -- --seed ${seed} --replay ${number}${values.only === undefined ? "" : ` --only ${values.only}`}`;
      writeFileSync(join(place, "failure.txt"), `${outcome}: ${path} of "${sample}"\n${again}\n\n${text}\n`);
    },
  });
  report(table, (Date.now() - start) / 1000, folder);
}

/**
 * @param {Map<string, Map<string, number>>} table
 * @param {number} seconds
 * @param {string} folder
 */
function report(table, seconds, folder) {
  const heads = ["accepted", "typed error", "wrong error", "hang", "crash", "memory"];
  const total = new Map(columns.map((column) => [column, [...table.values()].reduce((sum, row) => sum + (row.get(column) ?? 0), 0)]));
  const line = (/** @type {string} */ name, /** @type {readonly (string | number)[]} */ cells) =>
    `${name.padEnd(12)}${cells.map((cell) => String(cell).padStart(13)).join("")}\n`;
  process.stdout.write(line("reader", heads));
  for (const [name, row] of table)
    process.stdout.write(
      line(
        name,
        columns.map((column) => row.get(column) ?? 0),
      ),
    );
  const mutants = [...total.values()].reduce((sum, value) => sum + value, 0);
  const failures = columns.slice(2).map((column) => total.get(column) ?? 0);
  const isClean = failures.every((value) => value === 0);
  const counts = heads
    .slice(2)
    .map((head, i) => `${failures[i]} ${head}`)
    .join(", ");
  process.stdout.write(
    line(
      "all",
      columns.map((column) => total.get(column) ?? 0),
    ),
  );
  process.stdout.write(
    `\n${mutants} mutants in ${seconds.toFixed(0)} s, seed ${seed}: ${counts}${isClean ? "" : `; see ${relative(root, folder)}`}\n`,
  );
  process.exitCode = isClean ? 0 : 3;
}

/** @param {number} number */
async function replay(number) {
  const { isTyped, mutantOf, readers } = await import("./fuzz/readers.mjs");
  const { reader, sample, path, files } = mutantOf(seed, number, chosen);
  process.stdout.write(`${reader}: ${path} of "${sample}"\n`);
  try {
    await readers[reader]?.read(files);
    process.stdout.write("accepted\n");
  } catch (error) {
    const isFine = isTyped(error);
    process.stdout.write(
      `${isFine ? `typed error: ${/** @type {Error} */ (error).name}: ${/** @type {Error} */ (error).message}` : `wrong error: ${error instanceof Error ? error.stack : error}`}\n`,
    );
    process.exitCode = isFine ? 0 : 3;
  }
}
