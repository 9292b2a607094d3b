// Runs that are killed at random moments and resumed until they end: the bytes are those of an undisturbed run.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { command, differenceOf, problemOf, resultOf } from "./command.mjs";

/**
 * @typedef {{ name: string, args: readonly string[], canResume: boolean, before?: readonly string[] }} KillCase
 *   canResume: takes --resume; else the same command goes on or begins anew. before: a command that makes what it reads, in `made`. FOLDER in
 *   arguments stands for the case's own.
 */

/**
 * Every training method as `--method` takes it, and what else changes the course of a run.
 * @param {readonly string[]} methods
 * @param {{ model: string, train: string, heldOut: string }} project
 * @returns {KillCase[]}
 */
export function killCases(methods, { model, train, heldOut }) {
  const common = ["--model", model, "--data", train, "--batch-size", "4", "--device", "cpu"];
  const lora = ["train", ...common, "--steps", "24", "--save-every", "3", "--rank", "4", "--seed", "3"];
  // Its default of 64 is more than the layers of so small a model have inputs.
  const sizes = (/** @type {string} */ method) => (method === "miss" ? ["--rank", "8"] : []);
  const trained = (/** @type {string} */ method) => [
    "train",
    ...common,
    "--method",
    method,
    ...sizes(method),
    "--steps",
    "24",
    "--save-every",
    "3",
  ];
  return [
    ...methods.map((method) => ({ name: `--method ${method}`, args: trained(method), canResume: true })),
    { name: "accumulation", args: [...lora, "--accumulate", "3"], canResume: true },
    { name: "dropout", args: [...lora, "--dropout", "0.2"], canResume: true },
    { name: "evaluation", args: [...lora, "--eval-data", heldOut, "--eval-every", "5"], canResume: true },
    { name: "init pissa", args: [...lora, "--init", "pissa"], canResume: true },
    { name: "init eva", args: [...lora, "--init", "eva"], canResume: true },
    {
      name: "all of them",
      args: [...lora, "--accumulate", "2", "--dropout", "0.2", "--eval-data", heldOut, "--eval-every", "5"],
      canResume: true,
    },
    {
      name: "compare",
      args: [
        "compare",
        ...common,
        "--eval-data",
        heldOut,
        "--methods",
        "lora,ia3,full",
        "--steps",
        "8",
        "--save-every",
        "2",
        "--latency-seconds",
        "0.2",
      ],
      canResume: false,
    },
    ...[
      { name: "merge", args: ["merge", "--model", model, "--adapter", "FOLDER/made", "--device", "cpu"] },
      { name: "resize", args: ["resize", "FOLDER/made", "--rank", "2"] },
    ].map((one) => ({
      ...one,
      canResume: false,
      before: ["train", ...common, "--steps", "2", "--rank", "4", "--out", "FOLDER/made"],
    })),
  ];
}

/** What a command says that takes a new folder alone, and finds that the one before it was killed when all was written. */
const wasDone = /already holds files/;

/**
 * @param {KillCase} one
 * @param {number} kills
 * @param {string} folder
 * @param {{ next: () => number }} random
 * @returns {Promise<{ kills: number, resumed: number, problem: string | null }>}
 */
export async function killed({ args: given, canResume, before }, kills, folder, random) {
  const [whole, broken] = [join(folder, "whole"), join(folder, "broken")];
  const here = (/** @type {string} */ arg) => arg.replace("FOLDER", folder);
  const args = given.map(here);
  const made = before ? problemOf(await command(before.map(here))) : null;
  if (made !== null) return { kills: 0, resumed: 0, problem: `before: ${made}` };
  /** @param {import("./command.mjs").Outcome} outcome */
  const problemAfter = (outcome) => (canResume || !wasDone.test(outcome.output) ? problemOf(outcome) : null);
  const undisturbed = await command([...args, "--out", whole]);
  const wrong = problemOf(undisturbed);
  if (wrong !== null) return { kills: 0, resumed: 0, problem: `undisturbed: ${wrong}` };
  const wanted = resultOf(whole);
  let [done, resumed] = [0, 0];
  const goOn = [...args, "--out", broken, ...(canResume ? ["--resume"] : [])];
  // A run that ends before its kill is one more comparison, and the next begins anew; so does it after several kills.
  for (let attempt = 0; attempt < 4 * kills && done < kills; attempt++) {
    const outcome = await command(goOn, { killAfterMs: undisturbed.ms * (0.15 + 0.8 * random.next()) });
    if (outcome.code === null && !outcome.hung) {
      done += 1;
      resumed += 1;
      continue;
    }
    const problem = problemAfter(outcome) ?? differenceOf(resultOf(broken), wanted);
    if (problem !== null) return { kills: done, resumed, problem };
    rmSync(broken, { recursive: true, force: true });
  }
  const last = await command(goOn);
  return { kills: done, resumed, problem: problemAfter(last) ?? differenceOf(resultOf(broken), wanted) };
}
