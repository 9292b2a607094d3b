import { type Evaluator, type Examples, evaluationSequence, evaluator, ignoredLabel, longestLength, selectExamples } from "@lowrank/models";
import { nodeFiles } from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import { dataFlags } from "../data/flags.js";
import { openData, readingOf } from "../data/open.js";
import { type Answer, exactMatch, failedLines } from "../eval/answers.js";
import { jsonScores } from "../eval/json-answers.js";
import { chrf, normalized, rougeL } from "../eval/overlap.js";
import { type OwnMetric, ownMetric } from "../eval/own-metric.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { revisionFlag } from "../hub.js";
import { checkFile } from "../out/file.js";
import { inputsOf } from "../out/inputs.js";
import type { Output } from "../output.js";
import { adapterFlag, baseFlag, deviceFlag, jsonFlag, openAdapter, openModel, quantizeFlag, withDevice } from "../session.js";
import { grouped } from "../terminal/format.js";

const flags = {
  model: baseFlag,
  revision: revisionFlag,
  quantize: quantizeFlag,
  adapter: adapterFlag,
  ...dataFlags,
  generate: { type: "switch", help: "also answer every prompt greedily, and compare the answers with the completions" },
  metric: { type: "text", value: "FILE.mjs", path: "read", help: "with --generate: a module whose default export scores a row" },
  predictions: { type: "text", value: "OUT.jsonl", path: "written", help: "write each row's loss, and with --generate its answer" },
  "max-new-tokens": { type: "integer", min: 1, help: "longest answer with --generate (default: the longest completion)" },
  rows: { type: "integer", min: 1, help: "rows used, evenly spread over the file (default: all)" },
  "batch-size": { type: "integer", min: 1, help: "rows at a time", default: 16 },
  device: deviceFlag,
  json: jsonFlag,
} as const satisfies Flags;

async function runEval({ values, output, signal }: CommandContext<typeof flags>): Promise<number> {
  const { predictions } = values;
  if (values.metric !== undefined && !values.generate) throw new UsageError("--metric scores answers. Give --generate as well.");
  if (predictions !== undefined) {
    const file = { name: "--predictions", path: predictions, isOurs: isPredictions };
    await checkFile(file, { inputs: inputsOf(flags, values), folder: "", writes: [] });
  }
  const metric = values.metric === undefined ? null : await ownMetric(values.metric);
  return withDevice(values.device, output, async (dev) => {
    const loaded = await openModel(values.model, dev, {
      revision: values.revision,
      quantize: values.quantize,
      adapters: values.adapter === undefined ? [] : [values.adapter],
      output,
      signal,
    });
    await openAdapter(loaded.model, values.adapter, output, signal);
    const data = await openData(values.data, loaded, output, { reading: readingOf(values), rowLimit: values.rows, signal });
    const meter = evaluator(loaded.model);
    const shape = { layout: loaded.model.batchLayout, lengthLimit: longestLength(data.examples) };
    const { loss, tokenCount } = await meter.run(evaluationSequence(data.examples, values["batch-size"], shape));
    const losses = predictions === undefined ? [] : await rowLosses(meter, data.examples, shape, output);
    meter.dispose();
    const perplexity = Math.exp(loss);
    output.say(`loss ${loss.toFixed(4)} over ${grouped(tokenCount)} tokens, perplexity ${perplexity.toFixed(3)}`);

    const match = values.generate ? await exactMatch(loaded, data, { maxNewTokens: values["max-new-tokens"], signal, output }) : null;
    const scores = match ? await scored(match.answers, metric) : null;
    if (match && scores) {
      output.say(`exact match ${percent(match.share)} of ${grouped(match.answers.length)} rows`);
      for (const line of scoreLines(scores)) output.say(line);
      for (const line of failedLines(match.answers, output.columns)) output.say(line);
    }
    if (predictions !== undefined) {
      await nodeFiles.write(predictions, new TextEncoder().encode(predictionLines(losses, match)));
      output.say(`${grouped(losses.length)} rows in ${predictions}`);
    }
    output.result({ loss, perplexity, tokens: tokenCount, exactMatch: match?.share ?? null, ...scores });
    return 0;
  });
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

/** What the answers score beside exact matches. */
interface Scores {
  readonly normalizedMatch: number;
  readonly rougeL: number;
  readonly chrf: number;
  readonly json: ReturnType<typeof jsonScores>;
  readonly metric?: { readonly name: string; readonly mean: number };
}

async function scored(answers: readonly Answer[], metric: OwnMetric | null): Promise<Scores> {
  const equal = answers.filter(({ expected, answer }) => normalized(expected) === normalized(answer)).length;
  return {
    normalizedMatch: equal / Math.max(1, answers.length),
    rougeL: rougeL(answers),
    chrf: chrf(answers),
    json: jsonScores(answers),
    ...(metric && { metric: { name: metric.name, mean: await metric.mean(answers) } }),
  };
}

function scoreLines({ normalizedMatch, rougeL: rouge, chrf: characters, json, metric }: Scores): string[] {
  return [
    `match without case and punctuation ${percent(normalizedMatch)}, ROUGE-L ${rouge.toFixed(3)}, chrF ${characters.toFixed(1)}`,
    ...(json
      ? [`JSON: ${percent(json.validShare)} of ${grouped(json.rowCount)} rows valid, ${percent(json.fieldShare)} of their values right`]
      : []),
    ...(metric ? [`${metric.name} ${metric.mean.toPrecision(4)}`] : []),
  ];
}

/** A row's mean loss over the tokens that are to be predicted. */
interface RowLoss {
  readonly line: number;
  readonly loss: number;
  readonly tokens: number;
}

/** Each row's loss, measured alone. */
async function rowLosses(
  meter: Evaluator,
  examples: Examples,
  shape: Parameters<typeof evaluationSequence>[2],
  output: Output,
): Promise<RowLoss[]> {
  const losses: RowLoss[] = [];
  let position = 0;
  for (const { line, labels } of examples) {
    const { loss } = await meter.run(evaluationSequence(selectExamples(examples, [position++]), 1, shape));
    losses.push({ line, loss, tokens: labels.filter((label, i) => i > 0 && label !== ignoredLabel).length });
    output.draw(`row ${grouped(position)} of ${grouped(examples.length)}`);
  }
  output.draw("");
  return losses;
}

/** A line for each row, told apart by its place: several files have rows of the same line. */
function predictionLines(losses: readonly RowLoss[], match: Awaited<ReturnType<typeof exactMatch>> | null): string {
  const answers = new Map(match?.positions.map((position, i) => [position, match.answers[i]]));
  return losses.map((row, position) => `${JSON.stringify({ ...row, ...answers.get(position) })}\n`).join("");
}

/** Whether a file is one of predictions, which may be written anew. */
async function isPredictions(path: string): Promise<boolean> {
  const source = await nodeFiles.open(path);
  if (!source) return false;
  try {
    return new TextDecoder().decode(await source.read(0, Math.min(8, source.byteLength))).startsWith('{"line":');
  } finally {
    await source.close?.();
  }
}

export const evalCommand = defineCommand({
  name: "eval",
  makes: "text",
  summary:
    "Measure a model on a data file: mean loss over completion tokens, perplexity, and how its answers compare with what they should be.",
  flags,
  examples: [
    "lowrank eval --model ./model --adapter run --data test.jsonl --generate",
    "lowrank eval --model ./model --adapter run --data test.jsonl --generate --predictions answers.jsonl",
  ],
  run: runEval,
});
