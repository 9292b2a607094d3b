// What we export beside llama.cpp, which loads it: models and adapters of shared/families (LOWRANK_SHARED) as GGUF.
//
//   node scripts/compare-exports.mjs [FAMILY...]     log-probabilities and first choices at each of 64 positions of our own greedy texts
//   node scripts/compare-exports.mjs --all           of every family there
//
// F32 files: at most 1e-3 apart (2e-3 with gelu), and the same first choice wherever ours leads by 1e-2. F16 files: log-probabilities alone, at most 0.05 apart. llama.cpp reads gelu
// from a table of f16, in its tanh form whatever the model's: ours is computed so too where a family has it. What differs after it was told (a note of saveGguf's, an
// error that names what no file can say) is printed as "told", with by how much, and fails nothing; so many first tokens as a note says are the same are held to it.
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { llamaCpp, llamaCppVersion } from "./compare/llama-cpp.mjs";
import { report } from "./compare/python.mjs";
import { prepare, root } from "./prepare.mjs";

const given = process.argv.slice(2);
const [isAll, names] = [given.includes("--all"), given.filter((name) => name !== "--all")];
const shared = join(process.env["LOWRANK_SHARED"] ?? resolve(root, "../shared"), "families");
/** The ones that are compared where none is named: of as different makes as there are. */
const usual = ["llama-tied", "qwen3", "gemma3", "llama-rope-llama3", "qwen2", "olmo2", "phi", "ministral3", "falcon_h1", "gpt_neox"];
const most = { f32: 1e-3, gelu: 2e-3, f16: 0.05 };
const lead = 1e-2;

await prepare();
const { device, nodeFiles } = await import("../packages/tensor/dist/node.js");
const { loadModel, saveGguf, saveGgufAdapter } = await import("../packages/models/dist/node.js");
const { activations } = await import("../packages/models/dist/activation.js");
const { first, llamaCpps, ours } = await import("./compare/log-probabilities.mjs");
const { loadAdapter, plainPairs } = await import("../packages/lora/dist/node.js");

// ggml's GGML_GELU_FP16: gelu of a number rounded to f16, rounded to f16.
const { gelu_pytorch_tanh: tanhGelu } = activations;
for (const name of /** @type {const} */ (["gelu", "gelu_new", "gelu_pytorch_tanh"]))
  Object.assign(activations, { [name]: (/** @type {any} */ x) => tanhGelu(x.cast("f16").cast("f32")).cast("f16").cast("f32") });

const counts = { passed: 0, failed: 0, skipped: 0 };
/** Of the family at hand, what was told of it. @type {string[]} */
let told = [];
let toldCount = 0;
/** @type {string[]} */
const notes = [];
const installed = await llamaCpp();
const folder = mkdtempSync(join(tmpdir(), "lowrank-exports-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

/**
 * Tokens that stand for themselves: the families have no tokenizer, and llama.cpp opens no file without one.
 * @param {number} size
 * @returns {ReadonlyMap<string, import("../packages/tensor/dist/node.js").GgufValueToWrite>}
 */
function vocabularyOf(size) {
  const tokens = Array.from({ length: size }, (_, id) =>
    id === 0 ? "<s>" : id === 1 ? "</s>" : id < 96 ? String.fromCharCode(31 + id) : `t${id}`,
  );
  return new Map([
    ["tokenizer.ggml.model", { type: "string", value: "gpt2" }],
    ["tokenizer.ggml.pre", { type: "string", value: "default" }],
    ["tokenizer.ggml.tokens", { type: "string[]", value: tokens }],
    ["tokenizer.ggml.token_type", { type: "i32[]", value: tokens.map((_, id) => (id < 2 ? 3 : 1)) }],
    ["tokenizer.ggml.merges", { type: "string[]", value: ["a b"] }],
    ["tokenizer.ggml.bos_token_id", { type: "u32", value: 0 }],
    ["tokenizer.ggml.eos_token_id", { type: "u32", value: 1 }],
    ["tokenizer.ggml.add_bos_token", { type: "bool", value: false }],
  ]);
}

/** Tokens, each the likeliest in a text of that length, to the context's end or 64: one length, so that one plan computes them all. @param {any} model */
async function greedyText(model) {
  const [begin, length] = [[3, 1, 4], Math.min(64, model.contextLength)];
  const ids = Array.from({ length }, (_, at) => begin[at] ?? 0);
  for (let at = begin.length; at < length; at++) ids[at] = first((await ours(model, ids))[at - 1] ?? new Float32Array());
  return ids;
}

/** @param {import("./compare/log-probabilities.mjs").Rows} own @param {import("./compare/log-probabilities.mjs").Rows} other */
function distance(own, other) {
  let difference = 0;
  let choices = 0;
  for (const [position, row] of own.entries()) {
    const there = other[position] ?? new Float32Array();
    for (const [token, value] of row.entries())
      difference = Math.max(difference, Math.abs(value - (there[token] ?? Number.NEGATIVE_INFINITY)));
    const [largest = 0, second = 0] = [...row].sort((a, b) => b - a);
    if (largest - second > lead && first(there) !== first(row)) choices++;
  }
  return { difference, choices };
}

/**
 * @typedef {object} Comparison
 * @property {string} what
 * @property {import("./compare/log-probabilities.mjs").Question} question
 * @property {import("./compare/log-probabilities.mjs").Rows} own
 * @property {number} limit
 * @property {boolean} [areChoicesFree]
 */

/** @param {readonly Comparison[]} comparisons */
function compare(comparisons) {
  for (const [index, theirs] of llamaCpps(comparisons.map(({ question }) => question)).entries()) {
    const { what, own, limit, areChoicesFree = false } = /** @type {Comparison} */ (comparisons[index]);
    if (theirs instanceof Error) say(false, `${what}: ${theirs.message}`);
    else {
      // A note may say how many tokens get the same answers: these do.
      const same = told.map((text) => Number(/Keep to (\d+) tokens/.exec(text)?.[1] ?? Number.NaN)).find(Number.isInteger);
      if (same !== undefined)
        judge(`${what}, ${same} tokens`, own.slice(0, same), theirs.slice(0, same), limit, { areChoicesFree, isTold: false });
      judge(what, own, theirs, limit, { areChoicesFree, isTold: told.length > 0 });
    }
  }
}

/**
 * @param {string} what
 * @param {import("./compare/log-probabilities.mjs").Rows} own
 * @param {import("./compare/log-probabilities.mjs").Rows} theirs
 * @param {number} limit
 * @param {{ areChoicesFree: boolean, isTold: boolean }} options
 */
function judge(what, own, theirs, limit, { areChoicesFree, isTold }) {
  const { difference, choices } = distance(own, theirs);
  const isGood = difference <= limit && (areChoicesFree || choices === 0);
  say(isGood, `${what}: log-probabilities ${difference.toExponential(1)} apart, ${choices} other first choices`, isTold);
}

/** Counts a comparison, which may differ where something was told. @param {boolean} isGood @param {string} text */
function say(isGood, text, mayDiffer = told.length > 0) {
  const isTold = !isGood && mayDiffer;
  if (isTold) toldCount++;
  else counts[isGood ? "passed" : "failed"]++;
  process.stdout.write(`${isGood ? "ok  " : isTold ? "told" : "FAIL"} ${text}${isTold ? ` (${told.join("; ")})` : ""}\n`);
}

/** What stands in an error that names what no file, or no adapter's file, can say. */
const refusal = /no GGUF file can say|has no (architecture|tensor) for|Merge (the adapter|it) into its base/;
if ("reason" in installed) notes.push(`skipped: ${installed.reason}`);
else if (!existsSync(shared)) notes.push("skipped: no shared/families beside this clone (LOWRANK_SHARED names another place)");
else {
  const dev = await device("cpu");
  const there = readdirSync(shared).filter((family) => existsSync(join(shared, family, "model")));
  const families = isAll ? there : (names.length > 0 ? names : usual).filter((family) => there.includes(family));
  for (const name of families) {
    told = [];
    try {
      const { model } = await loadModel(join(shared, name, "model"), { device: dev, dtype: "f32" });
      const vocabulary = vocabularyOf(model.vocabSize);
      // Of some names llama.cpp looks for tokens that stand in the vocabulary of the model of that name.
      const general = { name: "model" };
      const at = (/** @type {string} */ kind) => join(folder, `${name}-${kind}.gguf`);
      const [f32, f16, lora] = /** @type {const} */ ([at("f32"), at("f16"), at("lora")]);
      await saveGguf(model, f32, {
        files: nodeFiles,
        type: "f32",
        ...general,
        vocabulary,
        onNote: (/** @type {string} */ text) => told.push(text),
      });
      await saveGguf(model, f16, { files: nodeFiles, type: "f16", ...general, vocabulary });
      const ids = await greedyText(model);
      const plain = await ours(model, ids);
      // Where a number lies halfway between two of the table's, its neighbour is taken.
      const { hidden_act: act, hidden_activation: otherwise = act } = /** @type {any} */ (model.config);
      const limit = /^gelu/.test(otherwise) ? most.gelu : most.f32;
      /** @type {Comparison[]} */
      const comparisons = [
        { what: `${name}, F32`, question: { ids, model: f32 }, own: plain, limit },
        { what: `${name}, F16`, question: { ids, model: f16 }, own: plain, limit: most.f16, areChoicesFree: true },
      ];
      try {
        const adapter = await loadAdapter(model, join(shared, name, "adapter"), { onWarning: () => {} });
        await saveGgufAdapter(model, plainPairs(adapter, "GGUF"), lora, { files: nodeFiles, ...general });
        const adapted = await greedyText(model);
        const question = { ids: adapted, model: f32, lora };
        comparisons.push({ what: `${name}, F32 with its adapter`, question, own: await ours(model, adapted), limit });
      } finally {
        compare(comparisons);
      }
      model.dispose();
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      if (refusal.test(text)) told.push("refused");
      say(false, `${name}: ${text}`);
    }
  }
  dev.dispose();
}
if (counts.passed + counts.failed === 0) counts.skipped++;
if (toldCount > 0) notes.push(`${toldCount} told`);
report("compare-exports", counts, [`beside llama.cpp (node-llama-cpp ${llamaCppVersion})`, ...notes].join("; "));
