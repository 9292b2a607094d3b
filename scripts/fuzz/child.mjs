// A process that handles mutants one after another. What became of each is a letter at the end of a file, written before the next begins,
// so that the parent knows at which one the process ended.
import { appendFileSync, closeSync, openSync, writeSync } from "node:fs";
import { isTyped, mutantOf, readers } from "./readers.mjs";
import { residentMeter } from "./resident.mjs";

/** @typedef {{ from: number, to: number, seed: number, names: readonly string[], outcomes: string, wrong: string }} Job */

const meter = residentMeter();

process.on("message", (/** @type {Job} */ job) => void work(job));
process.on("disconnect", () => process.exit(0));
process.send?.("ready");

/** @param {Job} job */
async function work({ from, to, seed, names, outcomes, wrong }) {
  const file = openSync(outcomes, "a");
  for (let number = from; number < to; number++) {
    const { reader, files } = mutantOf(seed, number, names);
    const { read, spareBytes = Number.POSITIVE_INFINITY } = /** @type {import("./readers.mjs").Reader} */ (readers[reader]);
    const isMetered = Number.isFinite(spareBytes);
    let outcome = "a";
    if (isMetered) meter.begin();
    try {
      await read(files);
    } catch (error) {
      outcome = isTyped(error) ? "t" : "w";
      if (outcome === "w") {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        appendFileSync(wrong, `${JSON.stringify({ number, text: text.slice(0, 4000) })}\n`);
      }
    }
    const growth = isMetered ? meter.growth() : null;
    const most = spareBytes + [...files.values()].reduce((sum, { length }) => sum + length, 0);
    if (outcome !== "w" && growth !== null && growth > most) {
      outcome = "m";
      const text = `${(growth / 2 ** 20).toFixed(1)} MB more than at the process's start, at most ${(most / 2 ** 20).toFixed(1)}`;
      appendFileSync(wrong, `${JSON.stringify({ number, text })}\n`);
    }
    writeSync(file, outcome);
  }
  closeSync(file);
  process.send?.("done");
}
