// What a model says of each token behind each position of a text, as log-probabilities: ours, and llama.cpp's of a GGUF file.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { tensor } from "../../packages/tensor/dist/node.js";

/** @typedef {readonly Float32Array[]} Rows  a row a position, a number a token */

/** @param {Float32Array} all  [positions, vocabulary] @param {number} positions @returns {Rows} */
export function rowsOf(all, positions) {
  const size = all.length / positions;
  return Array.from({ length: positions }, (_, position) => all.subarray(position * size, (position + 1) * size));
}

/** @param {any} model @param {readonly number[]} ids @returns {Promise<Rows>} */
export async function ours(model, ids) {
  const logits = await model.forward(tensor([...ids], { dtype: "i32", device: model.device, shape: [1, ids.length] })).data();
  return rowsOf(logits, ids.length).map((row) => {
    const largest = row.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
    const sum = Math.log(row.reduce((total, value) => total + Math.exp(value - largest), 0)) + largest;
    return row.map((value) => value - sum);
  });
}

/** A text, and the files of a model, and of an adapter, that are to say what follows. @typedef {{ ids: readonly number[], model: string, lora?: string }} Question */

/**
 * llama.cpp's answers, an error for each on which it ended.
 * @param {readonly Question[]} questions
 * @returns {readonly (Rows | Error)[]}
 */
export function llamaCpps(questions) {
  const folder = mkdtempSync(join(tmpdir(), "lowrank-logits-"));
  try {
    const script = fileURLToPath(new URL("llama-cpp-logits.mjs", import.meta.url));
    const asked = questions.map((question, index) => ({ ...question, out: join(folder, `${index}.f32`) }));
    /** @type {(Rows | Error)[]} */
    const answers = [];
    while (answers.length < asked.length) {
      const input = JSON.stringify(asked.slice(answers.length));
      const { status, signal, stderr } = spawnSync(process.execPath, [script], { input, encoding: "utf8" });
      for (const { ids, out } of asked.slice(answers.length)) {
        if (!existsSync(out)) break;
        const bytes = readFileSync(out);
        answers.push(rowsOf(new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4), ids.length));
      }
      // It ended on the first that is missing; those behind it are asked again.
      if (answers.length < asked.length) answers.push(new Error(`llama.cpp ended with ${status ?? signal}: ${reasonIn(stderr)}`));
    }
    return answers;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The line that says what went wrong: an error's, which a stack follows, or the last. @param {string} text */
function reasonIn(text) {
  const lines = text.trim().split("\n");
  return lines.find((line) => /^\w*Error\b/.test(line)) ?? lines.at(-1);
}

/** The likeliest token of a row. @param {Float32Array} row */
export function first(row) {
  let best = 0;
  for (let token = 1; token < row.length; token++) if ((row[token] ?? 0) > (row[best] ?? 0)) best = token;
  return best;
}

/**
 * Two models on one text: the share of equal first choices, and the mean over the positions of KL(a ‖ b) = Σ p_a (log p_a − log p_b), in nats.
 * @param {Rows} a
 * @param {Rows} b
 */
export function agreement(a, b) {
  let equal = 0;
  let kl = 0;
  for (const [position, row] of a.entries()) {
    const other = b[position] ?? new Float32Array();
    if (first(row) === first(other)) equal++;
    for (const [token, value] of row.entries())
      if (value > -80) kl += Math.exp(value) * (value - (other[token] ?? Number.NEGATIVE_INFINITY));
  }
  return { equal: equal / a.length, kl: kl / a.length };
}
