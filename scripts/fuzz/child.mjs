// A process that handles mutants one after another. What became of each is a letter at the end of a file, written before the next begins,
// so that the parent knows at which one the process ended.
import { appendFileSync, closeSync, openSync, writeSync } from "node:fs";
import { isTyped, mutantOf, readers } from "./readers.mjs";

/** @typedef {{ from: number, to: number, seed: number, names: readonly string[], outcomes: string, wrong: string }} Job */

process.on("message", (/** @type {Job} */ job) => void work(job));
process.on("disconnect", () => process.exit(0));
process.send?.("ready");

/** @param {Job} job */
async function work({ from, to, seed, names, outcomes, wrong }) {
  const file = openSync(outcomes, "a");
  for (let number = from; number < to; number++) {
    const { reader, files } = mutantOf(seed, number, names);
    let outcome = "a";
    try {
      await readers[reader]?.read(files);
    } catch (error) {
      outcome = isTyped(error) ? "t" : "w";
      if (outcome === "w") {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        appendFileSync(wrong, `${JSON.stringify({ number, text: text.slice(0, 4000) })}\n`);
      }
    }
    writeSync(file, outcome);
  }
  closeSync(file);
  process.send?.("done");
}
