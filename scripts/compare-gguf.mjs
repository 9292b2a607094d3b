// Tokenizers through GGUF: written as metadata and read back, they give the ids of the original, as Rust has them; beside llama.cpp's.
//
//   node scripts/compare-gguf.mjs [NAME...]     the tokenizers that npm has, 2,000 texts each; --texts N, --show N differences of llama.cpp
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { llamaCpp, llamaCppVersion } from "./compare/llama-cpp.mjs";
import { pythonWith, report } from "./compare/python.mjs";
import { rust, version } from "./compare/rust.mjs";
import { strings } from "./compare/strings.mjs";
import { fetchedTokenizer, tokenizerPackages } from "./compare/tokenizer-packages.mjs";
import { ggufBytes, ggufValue } from "./fuzz/gguf.mjs";
import { prepare, root } from "./prepare.mjs";

const { values, positionals: names } = parseArgs({
  allowPositionals: true,
  options: { texts: { type: "string", default: "2000" }, show: { type: "string", default: "5" } },
});

await prepare();
const { Tokenizer } = await import("../packages/models/dist/tokenizer/tokenizer.js");
const { tokenizerMetadata } = await import("../packages/models/dist/tokenizer/gguf/write.js");
const { ggufTokenizer } = await import("../packages/models/dist/tokenizer/gguf/read.js");

const folder = mkdtempSync(join(tmpdir(), "lowrank-gguf-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const counts = { passed: 0, failed: 0, skipped: 0 };
/** @type {string[]} */
const notes = [];

const found = pythonWith("tokenizers", version);
const rustTokenizers = "reason" in found ? null : rust(found.python);
if ("reason" in found) notes.push(`without Rust: ${found.reason}`);
const installed = await llamaCpp();
const isInstalled = "module" in installed;
if ("reason" in installed) notes.push(`without llama.cpp: ${installed.reason}`);

/** @param {boolean} isEqual @param {() => string} told */
function note(isEqual, told) {
  if (isEqual) counts.passed++;
  else {
    counts.failed++;
    const text = told();
    if (text !== "") process.stdout.write(`${text}\n`);
  }
  return isEqual;
}

/** A vocabulary alone as a file, which llama.cpp opens. @param {ReadonlyMap<string, any>} metadata @param {string} path */
function writeVocabulary(metadata, path) {
  const head = new Map(
    Object.entries({
      "general.architecture": "llama",
      "llama.context_length": 128,
      "llama.embedding_length": 64,
      "llama.block_count": 1,
      "llama.feed_forward_length": 64,
      "llama.attention.head_count": 1,
    }),
  );
  writeFileSync(
    path,
    ggufBytes({
      metadata: [
        ...[...head, ...metadata].map(([key, value]) => /** @type {const} */ ([key, ggufValue(value)])),
        ["llama.attention.layer_norm_rms_epsilon", { kind: "f32", value: 1e-5 }],
      ],
    }),
  );
}

for (const [i, [name, wanted]] of Object.entries(tokenizerPackages).entries()) {
  if (names.length > 0 && !names.includes(name)) continue;
  const file = fetchedTokenizer(name, wanted);
  if ("reason" in file) {
    counts.skipped++;
    notes.push(`skipped: ${file.reason}`);
    continue;
  }
  const json = JSON.parse(readFileSync(file.path, "utf8"));
  const config = JSON.parse(readFileSync(join(dirname(file.path), "tokenizer_config.json"), "utf8"));
  const original = new Tokenizer(json, config);
  const metadata = tokenizerMetadata({ json, config, tokenizer: original, size: original.vocabSize + 7, architecture: name }, name);
  const started = process.cpuUsage();
  const again = ggufTokenizer(metadata, `${name}.gguf`);
  if (!again) throw new Error("There is a tokenizer.");
  const made = process.cpuUsage(started).user / 1e3;
  const opened = new Tokenizer(again.json, again.config, again.template);
  const whole = process.cpuUsage(started).user / 1e3;
  const special = original.specialTokens.filter((_, k) => k % Math.ceil(original.specialTokens.length / 40) === 0);
  const texts = strings(Number(values.texts), [...special], 2000 + i);
  let differences = 0;
  for (const text of texts) {
    const [a, b] = [original, opened].map((tokenizer) => [
      tokenizer.encode(text),
      tokenizer.encode(text, { addSpecialTokens: false }),
      tokenizer.decode(tokenizer.encode(text), { skipSpecialTokens: false }),
    ]);
    const isEqual = JSON.stringify(a) === JSON.stringify(b);
    if (!isEqual) differences++;
    if (isEqual || differences <= 3)
      note(
        isEqual,
        () =>
          `${name}: ${JSON.stringify(text.slice(0, 90))}\n  original ${JSON.stringify(a).slice(0, 500)}\n  of GGUF  ${JSON.stringify(b).slice(0, 500)}`,
      );
  }
  note(original.chatTemplate === opened.chatTemplate, () => `${name}: another chat template`);
  note(original.eosTokenId === opened.eosTokenId && original.bosTokenId === opened.bosTokenId, () => `${name}: other special tokens`);
  let told = `${name} (${metadata.get("tokenizer.ggml.model")}, ${metadata.get("tokenizer.ggml.pre")}): ${texts.length - differences} of ${texts.length} as before`;
  if (rustTokenizers) {
    const { error, answers = [] } = await rustTokenizers.ask({ json: JSON.stringify(again.json), texts });
    let other = 0;
    for (const [k, text] of texts.entries()) {
      const answer = answers[k];
      const ids = answer !== undefined && !("error" in answer) ? answer[0] : null;
      const own = opened.encode(text);
      if (
        !note(JSON.stringify(ids) === JSON.stringify(own), () =>
          ++other <= 2
            ? `${name}: Rust ${error ?? ""} ${JSON.stringify(text.slice(0, 60))} ${JSON.stringify(ids)?.slice(0, 200)}, ours ${JSON.stringify(own).slice(0, 200)}`
            : "",
        )
      )
        other++;
    }
    told += `, ${texts.length - other} as Rust reads its tokenizer.json`;
  }
  if (isInstalled) {
    const path = join(folder, `${name}.gguf`);
    writeVocabulary(metadata, path);
    // llama.cpp's texts end at a zero byte, and its regular expressions overflow the stack on long words.
    const asked = texts.filter((text) => text.length <= 400 && !text.includes("\0"));
    const { stdout, signal } = spawnSync(process.execPath, [join(root, "scripts/compare/llama-cpp-ids.mjs"), path], {
      input: asked.map((text) => `${JSON.stringify(text)}\n`).join(""),
      encoding: "utf8",
      maxBuffer: 2 ** 30,
    });
    const answers = stdout.split("\n").slice(0, -1);
    const others = answers.flatMap((theirs, k) => {
      const own = JSON.stringify(opened.encode(asked[k] ?? "", { addSpecialTokens: false }));
      return own === theirs
        ? []
        : [`  ${JSON.stringify(asked[k]?.slice(0, 70))}: Rust ${own.slice(0, 90)}, llama.cpp ${theirs.slice(0, 90)}`];
    });
    told += `; llama.cpp differs on ${others.length} of ${answers.length}`;
    if (signal) told += ` and ends with ${signal} on ${JSON.stringify(asked[answers.length]?.slice(0, 70))}`;
    if (others.length > 0) told += `:\n${others.slice(0, Number(values.show)).join("\n")}`;
  }
  process.stdout.write(`${told}\n  read in ${Math.round(made)} ms of CPU, with its tokenizer ${Math.round(whole)} ms\n`);
}
rustTokenizers?.end();
report(
  "compare-gguf",
  counts,
  [`tokenizers ${version}`, isInstalled ? `node-llama-cpp ${llamaCppVersion}` : "", ...notes].filter((text) => text !== "").join("; "),
);
