// The flags of a script of this folder.
import { parseArgs } from "node:util";

/** @typedef {NonNullable<import("node:util").ParseArgsConfig["options"]>} Options */

/**
 * Values by flag. Ends the process with a sentence, the usage and 2 where something is not understood.
 * @template {Options} O
 * @param {O} options as node:util's parseArgs takes them
 * @param {string} usage one line
 */
export function flagsOf(options, usage, args = process.argv.slice(2)) {
  return argumentsOf(options, usage, { args, allowPositionals: false }).values;
}

/**
 * The same, and with `allowPositionals` the words beside the flags.
 * @template {Options} O
 * @param {O} options @param {string} usage
 */
export function argumentsOf(options, usage, { args = process.argv.slice(2), allowPositionals = true } = {}) {
  try {
    return parseArgs({ args, options, allowPositionals });
  } catch (error) {
    // Only what is wrong with the arguments is the user's: those errors have a code.
    if (!(error instanceof Error && "code" in error && String(error.code).startsWith("ERR_PARSE_ARGS"))) throw error;
    return endWithUsage(`${error.message.split(". ")[0]}.`, usage);
  }
}

/** @param {string} problem a sentence @param {string} usage @returns {never} */
export function endWithUsage(problem, usage) {
  process.stderr.write(`${problem} Usage: ${usage}\n`);
  process.exit(2);
}
