import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { optim } from "@lowrank/autograd";
import { applyAdapter, merge, parameterReport, saveAdapter } from "@lowrank/lora";
import { type DataSet, encodeRows, saveModel, type Tokenizer, train } from "@lowrank/models";
import { nodeFiles } from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import { exactMatch } from "../eval/answers.js";
import type { Flags } from "../flags.js";
import { interruptedCode } from "../interruption.js";
import { type OutFolder, withOutFolder } from "../out-folder.js";
import { program } from "../program.js";
import { Progress } from "../progress.js";
import { baseModelFolder, exampleOrders, type OrderRow } from "../quickstart-assets.js";
import { deviceFlag, jsonFlag, openModel, withDevice } from "../session.js";
import { duration, oneLine, reportLines } from "../terminal/format.js";
import { plotLines } from "../terminal/plot.js";
import { shellWord } from "../terminal/shell-word.js";

const flags = {
  steps: { type: "integer", min: 1, help: "optimizer steps", default: 400 },
  rows: { type: "integer", min: 5, help: "held-out rows that are answered", default: 200 },
  seed: { type: "integer", min: 0, help: "of the data, the adapter and the order of rows", default: 1 },
  out: { type: "text", value: "DIR", path: "written", help: "where the adapter and the merged model go (default: a new temporary folder)" },
  device: { ...deviceFlag, default: "cpu" },
  json: jsonFlag,
} as const satisfies Flags;

const recipe = { rank: 8, alpha: 16, peak: 1e-2, warmup: 20, batchSize: 8 } as const;

type QuickstartContext = CommandContext<typeof flags>;

async function runQuickstart(context: QuickstartContext): Promise<number> {
  const { out } = context.values;
  if (out === undefined) return quickstart(context, null);
  const inputs = [{ name: "the model that ships with Lowrank", path: baseModelFolder() }];
  const claim = { command: "quickstart", path: out, inputs, writes: ["adapter", "merged"], mode: "own" } as const;
  return withOutFolder(context, claim, (folder) => quickstart(context, folder));
}

/** Without a folder, a temporary one is made once there is something to put into it. */
async function quickstart({ values, output, ...context }: QuickstartContext, folder: OutFolder | null): Promise<number> {
  const { signal } = folder ?? context;
  const files = folder?.files ?? nodeFiles;
  const base = baseModelFolder();
  const orders = await exampleOrders({ trainCount: 2000, heldOutCount: values.rows, seed: values.seed });
  return withDevice(values.device, output, async (dev) => {
    const loaded = await openModel(base, dev);
    const { model, tokenizer } = loaded;
    const encode = (rows: readonly OrderRow[], name: string): DataSet => encoded(rows, name, tokenizer, model.contextLength);
    const data = encode(orders.train, "training rows");
    const heldOut = encode(orders.heldOut, "held-out rows");
    const unseen = encode(orders.unseenNames, "rows with unseen names");
    output.say("The task: an order in free words becomes a record.");
    output.say(`  ${oneLine(orders.heldOut[0]?.prompt ?? "", 74)}\n  → ${oneLine(orders.heldOut[0]?.completion ?? "", 72)}`);
    output.say();

    const before = await exactMatch(loaded, heldOut, { signal, output });
    output.say(`before: ${percent(before.share)} of ${values.rows} held-out orders exactly right`);

    const adapter = applyAdapter(model, {
      method: "lora",
      rank: recipe.rank,
      alpha: recipe.alpha,
      targets: "all-linear",
      seed: values.seed,
      baseModel: base,
    });
    const report = parameterReport(model, adapter);
    output.say();
    for (const line of reportLines(report, output.tableColumns)) output.say(line);
    output.say();

    const progress = new Progress(output, values.steps);
    const losses: { x: number; y: number }[] = [];
    const result = await train({
      model,
      parameters: adapter.namedParameters(),
      examples: data.examples,
      lengthLimit: model.contextLength,
      steps: values.steps,
      batchSize: recipe.batchSize,
      seed: values.seed,
      schedule: optim.cosine({ peak: recipe.peak, warmup: Math.min(recipe.warmup, values.steps - 1), steps: values.steps }),
      generators: [adapter.dropoutGenerator],
      signal,
      onStep(metrics) {
        losses.push({ x: metrics.step, y: metrics.loss });
        progress.step(metrics);
      },
    });
    output.draw("");
    if (!result.isFinished) {
      output.note("Stopped before the end; nothing was saved.");
      return interruptedCode(signal);
    }
    if (output.isTerminal) for (const line of plotLines(losses, { columns: output.columns })) output.say(line);
    output.say(`trained ${values.steps} steps in ${duration(result.trainSeconds)}`);

    const after = await exactMatch(loaded, heldOut, { signal, output });
    const names = await exactMatch(loaded, unseen, { signal, output });
    output.say(`after:  ${percent(after.share)} of them, combinations never seen in training`);
    output.say(`        ${percent(names.share)} where the names themselves were never seen`);
    output.say();

    await folder?.begin();
    const out = folder?.path ?? mkdtempSync(join(tmpdir(), "lowrank-quickstart-"));
    const [adapterFolder, mergedFolder] = [join(out, "adapter"), join(out, "merged")];
    await saveAdapter(adapter, adapterFolder, { files });
    const samples: DataSet = { ...heldOut, examples: heldOut.examples.slice(0, 5) };
    merge(adapter);
    const merged = await exactMatch(loaded, samples, { signal });
    await saveModel(model, mergedFolder, { files });
    const mergedTextEqual = merged.answers.every(({ answer }, i) => answer === after.answers[i]?.answer);

    const width = output.columns - 8;
    for (const [i, { prompt }] of samples.examples.map((_, at) => after.answers[at] ?? { prompt: "" }).entries()) {
      output.say(`order   ${oneLine(prompt, width)}`);
      output.say(`before  ${oneLine(before.answers[i]?.answer ?? "", width)}`);
      output.say(`after   ${oneLine(after.answers[i]?.answer ?? "", width)}`);
      output.say("─".repeat(output.columns - 1));
    }
    output.say(`trained ${report.trainablePercent.toFixed(2)} % of the parameters; the others are frozen and unchanged`);
    output.say(
      mergedTextEqual
        ? "merged into the weights, the model gives the same text, at the base's cost"
        : "merged and unmerged text differ: this is a mistake of ours, please report it",
    );
    output.say();
    const sample = orders.unseenNames[0]?.prompt ?? "";
    output.say(`The adapter is in ${adapterFolder},`);
    const generate = ["generate", `--model ${shellWord(base)}`, `--adapter ${shellWord(adapterFolder)}`, `--prompt ${shellWord(sample)}`];
    output.say(
      `the merged model in ${mergedFolder}. Try next:`,
      `${program()} ${generate.join(" \\\n    ")}`,
      `${program()} inspect ${shellWord(adapterFolder)}`,
      `${program()} train --model DIR --data yours.jsonl --eval-data held-out.jsonl \\\n    --steps 300 --out run`,
    );
    output.result({
      exactMatchBefore: before.share,
      exactMatchAfter: after.share,
      exactMatchUnseenNames: names.share,
      trainSeconds: result.trainSeconds,
      trainable: report.trainable,
      frozen: report.frozen,
      mergedTextEqual,
    });
    return mergedTextEqual ? 0 : 1;
  });
}

function encoded(rows: readonly OrderRow[], name: string, tokenizer: Tokenizer, context: number): DataSet {
  return encodeRows(
    rows.map(({ prompt, completion }, i) => ({ kind: "completion", line: i + 1, prompt, completion })),
    name,
    tokenizer,
    { context },
  );
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

export const quickstartCommand = defineCommand({
  name: "quickstart",
  makes: "files",
  summary: "Fine-tune the small model that ships with Lowrank, in about a minute, on the cpu.",
  flags,
  examples: ["lowrank quickstart"],
  run: runQuickstart,
});
