// Models of random config.json files beside transformers and PEFT: logits of rows longer than windows, the greedy continuation through the cache,
// what is saved and loaded again, adapters both ways.
//
//   node scripts/compare-configs.mjs                            two configs of every family
//   node scripts/compare-configs.mjs --count 20 gemma3n_text    so many of one; --seed S draws others, --case N makes one again
//   node scripts/compare-configs.mjs --share 4                  one family in so many, which ones by the seed
//   node scripts/compare-configs.mjs --folder DIR               keeps the checkpoints that differ
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { dice } from "./compare/config-fields.mjs";
import { asking, installed, report } from "./compare/python.mjs";
import { drawn, randomConfig, seedOf } from "./compare/random-configs.mjs";
import { argumentsOf, endWithUsage } from "./flags.mjs";
import { prepare } from "./prepare.mjs";

/** The transformers whose values are right. */
const transformers = "5.18.0";
const text = /** @type {const} */ ({ type: "string" });
const usage = "node scripts/compare-configs.mjs [--count N] [--seed N] [--case N] [--share N] [--folder DIR] [FAMILY ...]";
const { values: flags, positionals } = argumentsOf({ count: text, seed: text, case: text, folder: text, share: text }, usage);

/** @param {"count" | "seed" | "case" | "share"} name @param {number} fallback @param {number} least */
function counted(name, fallback, least) {
  const value = Number(flags[name] ?? fallback);
  return Number.isSafeInteger(value) && value >= least
    ? value
    : endWithUsage(`--${name} is "${flags[name]}", and is a whole number of at least ${least}.`, usage);
}

const seed = counted("seed", 1, 0);
const share = counted("share", 1, 1);
for (const family of positionals)
  if (!drawn.includes(family)) endWithUsage(`There are no random configs of ${family}, but of ${drawn.join(", ")}.`, usage);
const families = positionals.length > 0 ? positionals : drawn.filter((_, i) => i % share === seed % share);
const cases = flags.case === undefined ? Array.from({ length: counted("count", 2, 1) }, (_, i) => i) : [counted("case", 0, 0)];

await prepare();
const { generate, loadModel, saveModel } = await import("@lowrank/models");
const { loadAdapter, merge, saveAdapter } = await import("@lowrank/lora");
const { grad } = await import("@lowrank/autograd");
const { device, realize, tensor } = await import("@lowrank/tensor");
/** @typedef {import("@lowrank/models").CausalLM} CausalLM */
/** @typedef {{ refused?: string, noise: number, greedy: number[], margins: number[], whole: number[], wrong?: string[], adapter?: { refused?: string, options?: object, noise?: number, loss?: number } }} Answer */

/** Of the largest logit, or of 1 where all are smaller: f32's rounding through a few layers. */
const tolerance = 1e-4;
/** Of a gradient's norm, or of a hundredth of the largest one's: several norms a layer spread f32's rounding. */
const gradientTolerance = 1e-3;
/** Two tokens that are this near to each other are told apart by rounding alone. */
const leastMargin = 2e-3;

/** @param {string} path */
function floats(path) {
  const bytes = readFileSync(path);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/**
 * How far logits are from others, where that is more than rounding; null otherwise.
 * @param {ArrayLike<number>} ours @param {ArrayLike<number>} theirs @param {number} noise  what f32 rounds there
 */
function distance(ours, theirs, noise) {
  if (ours.length !== theirs.length) return `${ours.length} numbers for ${theirs.length}`;
  let [worst, largest] = [0, 1];
  for (let i = 0; i < ours.length; i++) {
    const [a, b] = [ours[i] ?? 0, theirs[i] ?? 0];
    worst = Math.max(worst, Number.isNaN(a - b) ? (Number.isNaN(a) === Number.isNaN(b) ? 0 : Number.POSITIVE_INFINITY) : Math.abs(a - b));
    largest = Math.max(largest, Math.abs(b) || 0);
  }
  return worst <= tolerance * largest + 20 * noise ? null : `${worst.toExponential(1)} of ${largest.toPrecision(3)}`;
}

/** Rows and a prompt of a config: as long as its rotary positions reach. @param {Record<string, any>} config @param {number} seed */
function textsOf(config, seed) {
  const own = config["text_config"] ?? config;
  const roll = dice(seed);
  const scaling = own.rope_scaling ?? own.rope_parameters ?? {};
  const kind = scaling.rope_type ?? scaling.type;
  const most = own.max_position_embeddings ?? own.n_positions;
  const reach = kind === "dynamic" && scaling.alpha === undefined ? Math.floor(most * scaling.factor) : most;
  const vocab = Math.min(own.vocab_size, own.vocab_size_per_layer_input ?? own.vocab_size);
  // PyTorch's embeddings give the row of padding, 0, no gradient.
  const row = (/** @type {number} */ length) => Array.from({ length }, () => 1 + roll.below(vocab - 1));
  const length = roll.between(2, Math.min(reach, 40));
  const count = roll.between(1, Math.min(reach - 1, 9));
  const prompt = row(roll.between(1, Math.min(reach - count, 30)));
  return { rows: [row(length), row(length)], prompt, count };
}

/** Merges an adapter; false where it changes a weight that two layers share, which is refused by name. @param {import("@lowrank/lora").Adapter} adapter */
function merges(adapter) {
  try {
    merge(adapter);
    return true;
  } catch (error) {
    if (error instanceof Error && error.message.includes("share one weight")) return false;
    throw error;
  }
}

/**
 * What differs of the loss and of its gradients, which lie in the place of an adapter's numbers.
 * @param {import("@lowrank/tensor").Device} dev
 * @param {string} folder
 * @param {import("@lowrank/lora").Adapter} adapter
 * @param {CausalLM} model
 * @param {import("@lowrank/tensor").Tensor} ids
 * @param {{ loss: number, noise: number }} right
 */
async function trainingDifferences(dev, folder, adapter, model, ids, { loss: theirLoss, noise }) {
  const loss = model.loss(ids, ids);
  const ours = grad(loss, adapter.parameters());
  await realize(loss, ...ours);
  const other = await loadModel(folder, { device: dev });
  const theirs = (await loadAdapter(other.model, join(folder, "gradients"), { onWarning: () => {} })).namedParameters();
  /** @type {string[]} */
  const found = [];
  const own = await loss.item();
  if (!(Math.abs(own - theirLoss) <= tolerance * Math.max(1, theirLoss) + 20 * noise)) found.push(`loss ${own} for ${theirLoss}`);
  const norm = (/** @type {ArrayLike<number>} */ values) => Math.hypot(...Array.from(values));
  const wanted = new Map();
  for (const [name, value] of theirs) wanted.set(name, (await value.data()).slice());
  const largest = Math.max(...[...wanted.values()].map(norm));
  for (const [i, name] of [...adapter.namedParameters().keys()].entries()) {
    const [mine, right] = [Array.from((await ours[i]?.data()) ?? []), wanted.get(name) ?? []];
    const error = norm(mine.map((value, k) => value - right[k]));
    // Where logits are sensitive, their derivatives are more so.
    if (!(error <= gradientTolerance * (1 + noise / 1e-6) * Math.max(norm(right), largest / 100)))
      found.push(`gradient of ${name} off by ${error.toExponential(1)} of ${norm(right).toPrecision(3)}`);
  }
  other.model.dispose();
  return found.slice(0, 4);
}

/**
 * What of a case differs, in sentences.
 * @param {import("@lowrank/tensor").Device} dev
 * @param {string} folder
 * @param {{ rows: number[][], prompt: number[], count: number }} texts
 * @param {Answer} theirs
 * @param {(request: object) => Promise<Answer>} ask
 * @returns {Promise<string[]>}
 */
async function differences(dev, folder, { rows, prompt, count }, theirs, ask) {
  /** @type {string[]} */
  const found = [];
  const tell = (/** @type {string} */ what, /** @type {string | null} */ problem) => problem !== null && found.push(`${what}: ${problem}`);
  const ids = tensor(rows, { dtype: "i32", device: dev });
  const logits = async (/** @type {CausalLM} */ model) => (await model.forward(ids).data()).slice();
  const { model, warnings } = await loadModel(folder, { device: dev });
  const ours = await logits(model);
  const wanted = floats(join(folder, "logits.bin"));
  tell("logits", distance(ours, wanted, theirs.noise));
  const tokens = theirs.greedy.length > 0 ? await generate(model, prompt, { maxNewTokens: count, stopTokens: [] }) : [];
  const at = tokens.findIndex((token, i) => token !== theirs.greedy[i]);
  const near = theirs.margins.findIndex((margin) => margin < leastMargin);
  if (tokens.length !== theirs.greedy.length || (at >= 0 && (near < 0 || at < near)))
    tell(
      "greedy",
      `${tokens.join(" ")} for ${theirs.greedy.join(" ")} (of the whole text ${theirs.whole.join(" ")}), prompt of ${prompt.length}`,
    );
  const unusual = warnings.filter((warning) => !warning.includes("belong to no text model"));
  tell("warnings", unusual.length > 0 ? unusual.join(" ") : null);
  const saved = join(folder, "saved");
  await saveModel(model, saved);
  const again = await loadModel(saved, { device: dev });
  tell("saved and loaded", (await logits(again.model)).every((value, i) => Object.is(value, ours[i])) ? null : "other logits");
  again.model.dispose();
  const loaded = await ask({ load: saved, rows });
  tell(
    "saved and loaded by transformers",
    loaded.refused ?? ((loaded.wrong ?? []).join(" ") || distance(floats(join(saved, "loaded.bin")), wanted, theirs.noise)),
  );
  if (theirs.adapter?.options) {
    const said = JSON.stringify(theirs.adapter.options);
    const { noise = 0, loss = Number.NaN } = theirs.adapter;
    const adapter = await loadAdapter(model, join(folder, "adapter"), { onWarning: () => {} });
    const adapted = floats(join(folder, "adapter.bin"));
    tell(`adapter ${said}`, distance(await logits(model), adapted, noise));
    await saveAdapter(adapter, join(folder, "adapter-saved"));
    for (const what of await trainingDifferences(dev, folder, adapter, model, ids, { loss, noise }))
      tell(`adapter ${said}, training`, what);
    if (merges(adapter)) tell(`adapter ${said} merged`, distance(await logits(model), adapted, noise));
    const read = await ask({ load: folder, rows, adapter: join(folder, "adapter-saved") });
    tell(
      `adapter ${said} by PEFT`,
      read.refused ?? ((read.wrong ?? []).join(" ") || distance(floats(join(folder, "loaded.bin")), adapted, noise)),
    );
  }
  model.dispose();
  return found;
}

const found = installed("transformers", transformers);
if ("reason" in found) report("compare-configs", { passed: 0, failed: 0, skipped: 1 }, `skipped: ${found.reason}`);
else {
  const scratch = mkdtempSync(join(tmpdir(), "lowrank-configs-"));
  const python = asking(found.python, "configs.py", { HF_HUB_OFFLINE: "1" });
  const ask = /** @type {(request: object) => Promise<Answer>} */ (python.ask);
  const counts = { passed: 0, failed: 0, skipped: 0 };
  /** @type {Map<string, number>} */
  const refusals = new Map();
  let [adapters, unmade] = [0, 0];
  try {
    for (const family of families)
      for (const i of cases) {
        const own = seedOf(family, seed * 1000 + i);
        const name = `${family}, case ${i}`;
        const folder = join(scratch, `${family}-${i}`);
        mkdirSync(folder);
        const config = randomConfig(family, own);
        writeFileSync(join(folder, "config.json"), JSON.stringify(config, null, 1));
        const texts = textsOf(config, own);
        const dev = await device("cpu", { threads: 1 });
        const theirs = await ask({ make: folder, seed: own, ...texts, adapter: own });
        /** @type {string[]} */
        let differs = [];
        if (theirs.refused !== undefined) {
          unmade++;
          process.stdout.write(`${name}: transformers makes none: ${theirs.refused}\n`);
        } else {
          if (theirs.adapter?.refused !== undefined) process.stdout.write(`${name}: PEFT makes no adapter: ${theirs.adapter.refused}\n`);
          try {
            differs = await differences(dev, folder, texts, theirs, ask);
            if (differs.length > 0) counts.failed++;
            else counts.passed++;
            if (theirs.adapter?.options) adapters++;
          } catch (error) {
            if (!(error instanceof Error)) throw error;
            const isTyped = ["CheckpointError", "AdapterError"].includes(error.name);
            const fact = error.message.replaceAll(folder, "");
            if (isTyped) refusals.set(`${family}: ${fact}`, (refusals.get(`${family}: ${fact}`) ?? 0) + 1);
            else {
              counts.failed++;
              differs = [error.stack ?? fact];
            }
          }
        }
        dev.dispose();
        if (differs.length > 0) {
          process.stdout.write(`${name}: ${differs.join("\n  ")}\n  ${JSON.stringify(config)}\n`);
          if (flags.folder !== undefined) cpSync(folder, join(flags.folder, `${family}-${own}`), { recursive: true });
        }
        rmSync(folder, { recursive: true, force: true });
      }
  } finally {
    await python.end();
    rmSync(scratch, { recursive: true, force: true });
  }
  const refused = [...refusals.values()].reduce((sum, count) => sum + count, 0);
  for (const [reason, count] of refusals) process.stdout.write(`refused ${count} times: ${reason}\n`);
  counts.skipped = refused;
  report(
    "compare-configs",
    counts,
    `transformers ${transformers}, seed ${seed}; skipped are refused by name; ${adapters} with an adapter, ${unmade} that transformers does not make`,
  );
}
