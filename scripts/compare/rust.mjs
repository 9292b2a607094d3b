// The Rust tokenizers, asked through Python.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { root } from "../prepare.mjs";

/** The version that the tables of Unicode are from. */
export const version = "0.23.2";

/** @typedef {readonly [ids: number[], starts: number[], ends: number[], plain: number[], decoded: string, whole: string]} Answer */

/** @param {string} python */
export function rust(python) {
  const child = spawn(python, [join(root, "scripts/compare/encode.py")], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, PYTHONUTF8: "1", TOKENIZERS_PARALLELISM: "false" },
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    /** @param {object} request @returns {Promise<{ error?: string, answers?: Array<Answer | { error: string }> }>} */
    async ask(request) {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      const { value } = await lines.next();
      return JSON.parse(value ?? '{"error": "Python ended"}');
    },
    end: () => child.stdin.end(),
  };
}
