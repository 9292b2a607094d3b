// A real model in four bits beside llama.cpp and transformers: SmolLM2-135M's GGUF (Q4_1) of shared/models (LOWRANK_SHARED), on a question and our greedy answer.
//
//   node scripts/compare-smollm2.mjs     300 positions; --positions N
//
// llama.cpp quantises the activations to 8 bits where we do not, so that equality is not to be expected of it: at least 97 % equal first
// choices and a mean KL of 0.003 at most. transformers has the same weights dequantised to f32: log-probabilities at most 1e-2 apart, as sums in
// another order are after 30 layers, and its first choices are our answer. What SOURCES.md documents of it is held without a Python too.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { llamaCpp, llamaCppVersion } from "./compare/llama-cpp.mjs";
import { installed, report } from "./compare/python.mjs";
import { prepare, root } from "./prepare.mjs";

const { values } = parseArgs({ options: { positions: { type: "string", default: "300" } } });
const folder = join(process.env["LOWRANK_SHARED"] ?? resolve(root, "../shared"), "models", "smollm2-135m");
const file = join(folder, "SmolLM2-135M-Instruct.Q4_1.gguf");
const transformers = "5.18.0";
const least = { equal: 0.97, kl: 0.003 };
const farthest = 1e-2;
/** What transformers answers, by SOURCES.md. */
const answers = {
  "Write one sentence about the sea.":
    "The sea is a vast and mysterious realm, teeming with life and unending in its own way, a testament to the unending beauty of the universe.",
  "What is the capital of France?": "The capital of France is Paris.",
};
const longQuestion = "Tell me a story about a lighthouse keeper and a whale.";

await prepare();
const { device, nodeFiles } = await import("../packages/tensor/dist/node.js");
const { generate, loadModel } = await import("../packages/models/dist/node.js");
const { agreement, first, llamaCpps, ours, rowsOf } = await import("./compare/log-probabilities.mjs");

const counts = { passed: 0, failed: 0, skipped: 0 };
/** @type {string[]} */
const notes = [];

/** @param {boolean} isGood @param {string} text */
function judge(isGood, text) {
  counts[isGood ? "passed" : "failed"]++;
  process.stdout.write(`${isGood ? "ok  " : "FAIL"} ${text}\n`);
}

/** @param {string} reason */
function skip(reason) {
  counts.skipped++;
  notes.push(`skipped: ${reason}`);
}

/** What transformers computes with the dequantised weights. @param {readonly number[]} ids */
function transformersOn(ids) {
  const found = installed("transformers", transformers);
  if ("reason" in found) return found;
  const scratch = mkdtempSync(join(tmpdir(), "lowrank-smollm2-"));
  try {
    /** @param {readonly string[]} args @param {string} [input] */
    const python = (args, input = "") => {
      const { status, stdout, stderr } = spawnSync(found.python, args, { input, encoding: "utf8" });
      if (status !== 0) throw new Error(stderr.trim().split("\n").at(-1));
      return stdout;
    };
    python([join(folder, "to_huggingface.py"), join(scratch, "model"), "--dtype", "float32"]);
    const [script, out] = [join(root, "scripts/compare/teacher-forced.py"), join(scratch, "rows.f32")];
    python([script, join(scratch, "model"), out], JSON.stringify(ids));
    const bytes = readFileSync(out);
    return { rows: rowsOf(new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4), ids.length) };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** @param {Float32Array} row @param {Float32Array} other */
const farthestOf = (row, other) => row.reduce((most, value, token) => Math.max(most, Math.abs(value - (other[token] ?? 0))), 0);

/** @param {import("./compare/log-probabilities.mjs").Rows} a @param {import("./compare/log-probabilities.mjs").Rows} b */
const told = (a, b) => {
  const { equal, kl } = agreement(a, b);
  return `${(100 * equal).toFixed(1)} % equal first choices, mean KL ${kl.toExponential(1)}`;
};

if (!existsSync(file)) skip("no shared/models/smollm2-135m beside this clone (LOWRANK_SHARED names another place)");
else {
  const dev = await device("cpu");
  const { model, tokenizer } = await loadModel(file, { device: dev, files: nodeFiles });
  if (!tokenizer) throw new Error("The file has a tokenizer.");
  /** @param {string} content */
  const promptOf = (content) =>
    tokenizer.encode(tokenizer.applyChatTemplate([{ role: "user", content }], { addGenerationPrompt: true }), { addSpecialTokens: false });
  for (const [question, answer] of Object.entries(answers)) {
    const text = tokenizer.decode(await generate(model, promptOf(question), { maxNewTokens: 40 }), { skipSpecialTokens: false });
    judge(text === answer, `transformers by SOURCES.md, ${JSON.stringify(question)}: ${JSON.stringify(text)}`);
  }
  const prompt = promptOf(longQuestion);
  const ids = [...prompt, ...(await generate(model, prompt, { maxNewTokens: Number(values.positions) - prompt.length }))];
  const own = await ours(model, ids);

  const cpp = await llamaCpp();
  const [theirs = null] = "reason" in cpp ? [] : llamaCpps([{ ids, model: file }]);
  if ("reason" in cpp) skip(cpp.reason);
  if (theirs instanceof Error) throw theirs;
  if (theirs) {
    const { equal, kl } = agreement(own, theirs);
    judge(equal >= least.equal && kl <= least.kl, `llama.cpp, ${ids.length} positions: ${told(own, theirs)}`);
  }
  const reference = transformersOn(ids);
  if ("reason" in reference) skip(reference.reason);
  else {
    const apart = own.reduce((most, row, i) => Math.max(most, farthestOf(row, reference.rows[i] ?? row)), 0);
    judge(apart <= farthest, `transformers, ${ids.length} positions: ${apart.toExponential(1)} apart, ${told(reference.rows, own)}`);
    const others = ids.slice(prompt.length).filter((id, i) => first(reference.rows[prompt.length - 1 + i] ?? new Float32Array()) !== id);
    judge(others.length === 0, `transformers: ${others.length} of ${ids.length - prompt.length} greedy tokens are others`);
    if (theirs) notes.push(`llama.cpp beside transformers: ${told(reference.rows, theirs)}`);
  }
  model.dispose();
  dev.dispose();
}
report("compare-smollm2", counts, [`beside node-llama-cpp ${llamaCppVersion}, transformers ${transformers}`, ...notes].join("; "));
