// Chat templates beside jinja2 as transformers sets it up: what they render, and what they refuse.
//
//   node scripts/compare-templates.mjs           expressions, the templates of ../shared, and those of the tokenizers that compare-tokenizers fetched
//   node scripts/compare-templates.mjs --write   renders the expressions anew for the tests: packages/models/test/tokenizer/goldens-jinja.json
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { conversations, now, special } from "./compare/conversations.mjs";
import { expressions, variables } from "./compare/jinja-expressions.mjs";
import { ask, cache, pythonWith, report } from "./compare/python.mjs";
import { prepare, root } from "./prepare.mjs";

/** The jinja2 that the renderings of the tests are from. */
const jinja = "3.1.6";

/** @typedef {{ name: string, template: string, variables: string, known?: { text?: string, error?: string } }} Case */

/** Every template, and each of its outputs alone. @returns {string[]} */
function pieces() {
  const apart = (/** @type {string} */ text) => {
    const outputs = text.match(/\{\{[\s\S]*?\}\}+/g) ?? [];
    return /\{%|\{#/.test(text) || outputs.length < 2 ? [text] : [text, ...outputs];
  };
  return [...new Set(expressions.flatMap(apart))];
}

/** The variables of a conversation as JSON text, numbers as they stand. */
const given = (/** @type {string} */ conversation) =>
  `{${[...Object.entries(special).map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`), '"tools":null', '"documents":null', '"add_generation_prompt":false', conversation.trim().slice(1)].join(",")}`;

/** Templates of models, from `../shared` and from tokenizers, in every conversation. @returns {Case[]} */
function models() {
  /** @type {Array<readonly [string, string]>} */
  const templates = [];
  const shared = join(root, "../shared/templates");
  if (existsSync(shared))
    for (const name of readdirSync(shared).filter((file) => file.endsWith(".jinja")))
      templates.push([name, readFileSync(join(shared, name), "utf8")]);
  const tokenizers = join(cache, "tokenizers");
  for (const name of existsSync(tokenizers) ? readdirSync(tokenizers) : []) {
    const path = join(tokenizers, name, "models/tokenizer_config.json");
    const template = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")).chat_template : undefined;
    if (typeof template === "string") templates.push([name, template]);
  }
  return templates.flatMap(([name, template]) =>
    conversations.map((conversation, i) => ({ name: `${name}, conversation ${i}`, template, variables: given(conversation) })),
  );
}

await prepare();
const { ChatTemplate } = await import("../packages/models/dist/tokenizer/chat-template.js");
const { parseLossless } = await import("../packages/models/dist/lossless.js");

/** @param {Case} item */
function ours({ template, variables: text }) {
  try {
    const { text: rendered, generation } = new ChatTemplate(template).renderSpans(
      /** @type {Readonly<Record<string, unknown>>} */ (parseLossless(text)),
      () => new Date(now),
    );
    const codePoints = (/** @type {number} */ end) => [...rendered.slice(0, end)].length;
    return { text: rendered, generation: generation.map((/** @type {readonly number[]} */ span) => span.map(codePoints)) };
  } catch (error) {
    if (!(error instanceof Error) || error.name !== "TokenizerError") throw error;
    return { error: error.message };
  }
}

const found = pythonWith("jinja2", jinja);
if ("reason" in found) report("compare-templates", { passed: 0, failed: 0, skipped: 1 }, `skipped: ${found.reason}`);
else {
  /** @type {Case[]} */
  const cases = [...pieces().map((template) => ({ name: template, template, variables })), ...models()];
  const requests = cases.map(
    (item) => `{"template":${JSON.stringify(item.template)},"variables":${item.variables},"now":${JSON.stringify(now)}}`,
  );
  /** @type {Array<{ text?: string, generation?: number[][], error?: string }>} */
  const theirs = ask(found.python, "render.py", `[${requests.join(",")}]`);
  if (process.argv.includes("--write")) {
    const golden = pieces().map((template, i) => [template, theirs[i]?.error === undefined ? theirs[i]?.text : null]);
    const lines = golden.map((row) => JSON.stringify(row)).join(",\n");
    const path = join(root, "packages/models/test/tokenizer/goldens-jinja.json");
    writeFileSync(path, `{\n"variables": ${JSON.stringify(variables)},\n"renderings": [\n${lines}\n]\n}\n`);
  }
  let failed = 0;
  for (const [i, item] of cases.entries()) {
    const [expected, got] = [theirs[i] ?? {}, ours(item)];
    const isEqual =
      expected.error === undefined
        ? got.text === expected.text && JSON.stringify(got.generation) === JSON.stringify(expected.generation)
        : got.error !== undefined;
    if (isEqual) continue;
    failed++;
    process.stdout.write(`${item.name}\n  Python ${JSON.stringify(expected)}\n  ours   ${JSON.stringify(got)}\n`);
  }
  report("compare-templates", { passed: cases.length - failed, failed, skipped: 0 }, `jinja2 ${jinja}`);
}
