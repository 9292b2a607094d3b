// What of random rows is in the loss, and the loss itself, beside transformers: ids and masks token for token, losses to 1e-5.
//
//   node scripts/compare-masks.mjs           conversations by the templates of ../shared, prompt and completion, text; 200 rows of each
//   node scripts/compare-masks.mjs --whole   the losses of all of them, where else a vocabulary of more than a thousand has those of 8
//
// Right are the ranges that TRL's training templates mark, where such a template renders the same text, else what stands between a template's
// own markers, found in the text by an expression. Tokenizers: stories260K's of ../shared, and those that compare-tokenizers fetched.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ask, cache, installed, report } from "./compare/python.mjs";
import { completions, conversationRows, texts } from "./compare/random-rows.mjs";
import { prepare, root } from "./prepare.mjs";

/** The transformers whose values are right. */
const transformers = "5.18.0";
const rowCount = 200;
/** Rows of which losses are compared with a large vocabulary, where logits take their time. */
const fewRows = process.argv.includes("--whole") ? rowCount : 8;

const chatMl = "<\\|im_start\\|>assistant\n([\\s\\S]*?<\\|im_end\\|>\n)";
/**
 * Templates, the tokenizers that they came with or some of as much vocabulary, and what lies between markers. `marksHeader`: the training
 * template marks the turn's header too, which the generation prompt has: its marks are left out, and the markers count.
 * @type {ReadonlyArray<{ template: string, tokenizer: string, turn: string, training?: boolean, marksHeader?: boolean, has?: readonly ("tools" | "system" | "thoughts")[] }>}
 */
const makes = [
  {
    template: "llama3",
    tokenizer: "llama3",
    training: true,
    turn: "<\\|start_header_id\\|>assistant<\\|end_header_id\\|>\n\n([\\s\\S]*?<\\|eot_id\\|>)",
    has: ["system"],
  },
  { template: "qwen2_5", tokenizer: "qwen3", turn: chatMl, has: ["system", "tools"] },
  { template: "qwen3", tokenizer: "qwen3", training: true, turn: chatMl, has: ["system", "tools", "thoughts"] },
  { template: "gemma3", tokenizer: "gemma3", training: true, turn: "<start_of_turn>model\n([\\s\\S]*?<end_of_turn>\n)", has: ["system"] },
  { template: "phi3", tokenizer: "llama2", turn: "<\\|assistant\\|>\n([\\s\\S]*?<\\|end\\|>\n(?:</s>$)?)", has: ["system"] },
  { template: "lfm2", tokenizer: "deepseek_v3", turn: chatMl, has: ["system"] },
  {
    ...{ template: "gptoss", tokenizer: "gptoss", training: true, marksHeader: true, has: ["system", "tools"] },
    turn: "<\\|start\\|>assistant((?:(?!<\\|start\\|>(?:user|system|developer|functions))[\\s\\S])*)",
  },
];

await prepare();
const { encodeRow, EncodingNotes, evaluationBatches, evaluator, ignoredLabel, initModel, parseRows, saveModel, Tokenizer } = await import(
  "@lowrank/models"
);
const { device } = await import("@lowrank/tensor");

/** The folders of tokenizers that are here, by name. */
function tokenizerFolders() {
  const stories = join(root, "../shared/models/stories260K");
  const fetched = makes.map(({ tokenizer }) => [tokenizer, join(cache, "tokenizers", tokenizer, "models")]);
  return new Map(/** @type {[string, string][]} */ ([["stories260K", stories], ...fetched]).filter(([, folder]) => existsSync(folder)));
}

/**
 * @typedef {{ name: string, tokenizer: string, template?: string, training?: string, marksHeader?: boolean, turn?: string, rows: object[], lossRows: number }} Kind
 * @typedef {{ ids: number[], learned: boolean[], by: string } | { leftOut: string }} Right
 */

/** Every kind of rows with each tokenizer. @param {ReadonlyMap<string, string>} folders @returns {Kind[]} */
function kindsOf(folders) {
  const templates = join(root, "../shared/templates");
  const read = (/** @type {string} */ name) => readFileSync(join(templates, `${name}.jinja`), "utf8");
  const conversations = makes.flatMap(({ template, tokenizer, turn, training, marksHeader = false, has = [] }, seed) =>
    ["stories260K", tokenizer]
      .filter((name) => folders.has(name))
      .map((name) => ({
        name: `messages, ${template}, ${name}`,
        tokenizer: name,
        template: read(template),
        ...(training && { training: read(`${template}_training`) }),
        ...{ marksHeader, turn, rows: conversationRows(rowCount, seed, has), lossRows: name === "stories260K" ? rowCount : fewRows },
      })),
  );
  const plain = [...folders.keys()].flatMap((tokenizer, seed) => {
    const lossRows = tokenizer === "stories260K" ? rowCount : fewRows;
    return [
      { name: `prompt and completion, ${tokenizer}`, tokenizer, rows: completions(rowCount, seed), lossRows },
      { name: `text, ${tokenizer}`, tokenizer, rows: texts(rowCount, seed), lossRows },
    ];
  });
  return [...conversations, ...plain];
}

/**
 * What differs in a row; null where nothing does.
 * @param {{ ids: readonly number[], labels: readonly number[] } | string} ours
 * @param {{ ids: number[], learned: boolean[] }} right
 */
function difference(ours, { ids, learned }) {
  if (typeof ours === "string") return ours;
  if (JSON.stringify(ours.ids) !== JSON.stringify(ids)) return `other ids: ${ours.ids.join(" ")}\n  for ${ids.join(" ")}`;
  const at = ours.labels.findIndex((label, i) => (label !== ignoredLabel) !== learned[i]);
  return at < 0 ? null : `token ${at} (${ids[at]}) is ${learned[at] ? "not learned" : "learned"}`;
}

const folders = tokenizerFolders();
const found = installed("transformers", transformers);
if ("reason" in found) report("compare-masks", { passed: 0, failed: 0, skipped: 1 }, `skipped: ${found.reason}`);
else if (!folders.has("stories260K") || !existsSync(join(root, "../shared/templates")))
  report("compare-masks", { passed: 0, failed: 0, skipped: 1 }, "skipped: no ../shared with templates and models");
else {
  const scratch = mkdtempSync(join(tmpdir(), "lowrank-masks-"));
  const dev = await device("cpu");
  const counts = { passed: 0, failed: 0, skipped: 0 };
  /** @type {Map<string, number>} */
  const notes = new Map();
  let worst = 0;
  try {
    const kinds = kindsOf(folders);
    const models = new Map();
    const tokenizers = new Map();
    for (const [name, folder] of folders) {
      const file = (/** @type {string} */ path) => JSON.parse(readFileSync(join(folder, path), "utf8"));
      const json = file("tokenizer.json");
      const settings = file("tokenizer_config.json");
      const [bos_token, eos_token] = ["bos_token", "eos_token"].map((key) => settings[key]?.content ?? settings[key] ?? null);
      const tokenizer = new Tokenizer(json, { ...(bos_token && { bos_token }), eos_token });
      tokenizers.set(name, tokenizer);
      const config = { model_type: "llama", vocab_size: tokenizer.vocabSize, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1 };
      const model = await initModel(
        { ...config, num_attention_heads: 2, max_position_embeddings: 4096, tie_word_embeddings: true },
        { device: dev, seed: 1 },
      );
      models.set(name, model);
      await saveModel(model, join(scratch, name));
      writeFileSync(join(scratch, name, "tokens.json"), JSON.stringify({ bos_token, eos_token }));
    }
    const requests = kinds.map((kind) => ({
      ...kind,
      file: join(/** @type {string} */ (folders.get(kind.tokenizer)), "tokenizer.json"),
      model: join(scratch, kind.tokenizer),
    }));
    /** @type {Array<{ rows: Right[], loss: number }>} */
    const theirs = ask(found.python, "masks.py", JSON.stringify(requests));
    for (const [k, { name, tokenizer: called, template = null, rows, lossRows }] of kinds.entries()) {
      const tokenizer = tokenizers.get(called);
      if (template !== null) tokenizer.useChatTemplate(template);
      const read = parseRows(rows.map((row) => JSON.stringify(row)).join("\n"), "rows");
      const { rows: right = [], loss: theirLoss = Number.NaN } = theirs[k] ?? {};
      const examples = [];
      let [equal, differ] = [0, 0];
      for (const [i, row] of rows.entries()) {
        const expected = right[i];
        if (expected === undefined || "leftOut" in expected) {
          const reason = expected?.leftOut ?? "no answer";
          notes.set(reason, (notes.get(reason) ?? 0) + 1);
          continue;
        }
        let ours;
        try {
          ours = encodeRow(/** @type {import("@lowrank/models").Row} */ (read[i]), tokenizer, "rows", { notes: new EncodingNotes() });
          if (i < lossRows) examples.push(ours);
        } catch (error) {
          if (!(error instanceof Error)) throw error;
          ours = error.message;
        }
        const what = difference(ours, expected);
        if (what === null) equal++;
        else if (differ++ < 2) process.stdout.write(`${name}, row ${i} (${expected.by}): ${what}\n  ${JSON.stringify(row)}\n`);
        if (what === null) notes.set(expected.by, (notes.get(expected.by) ?? 0) + 1);
      }
      const evaluation = evaluator(models.get(called));
      const { loss } = await evaluation.run(evaluationBatches(examples, 8, { layout: "packed", lengthLimit: 4096 }));
      evaluation.dispose();
      const isNear = Math.abs(loss - theirLoss) <= 1e-5;
      worst = Math.max(worst, Math.abs(loss - theirLoss));
      if (!isNear) process.stdout.write(`${name}: loss ${loss} for ${theirLoss}\n`);
      counts.passed += equal + (isNear ? 1 : 0);
      counts.failed += differ + (isNear ? 0 : 1);
    }
  } finally {
    dev.dispose();
    rmSync(scratch, { recursive: true, force: true });
  }
  const said = [...notes].map(([what, count]) => `${count} ${what}`).join(", ");
  report("compare-masks", counts, `transformers ${transformers}, losses within ${worst.toExponential(1)}; rows: ${said}`);
}
