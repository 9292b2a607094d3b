import { evaluationSequence, evaluator, longestLength } from "@lowrank/models";
import { type CommandContext, defineCommand } from "../command.js";
import { dataFlags } from "../data/flags.js";
import { openData, readingOf } from "../data/open.js";
import { exactMatch, failedLines } from "../exact-match.js";
import type { Flags } from "../flags.js";
import { revisionFlag } from "../hub.js";
import { adapterFlag, deviceFlag, jsonFlag, modelFlag, openAdapter, openModel, withDevice } from "../session.js";
import { grouped } from "../terminal/format.js";

const flags = {
  model: modelFlag,
  revision: revisionFlag,
  adapter: adapterFlag,
  ...dataFlags,
  generate: { type: "switch", help: "also answer every prompt greedily and count the exact matches" },
  "max-new-tokens": { type: "integer", min: 1, help: "longest answer with --generate (default: the longest completion)" },
  rows: { type: "integer", min: 1, help: "rows used, evenly spread over the file (default: all)" },
  "batch-size": { type: "integer", min: 1, help: "rows at a time", default: 16 },
  device: deviceFlag,
  json: jsonFlag,
} as const satisfies Flags;

async function runEval({ values, output, signal }: CommandContext<typeof flags>): Promise<number> {
  return withDevice(values.device, output, async (dev) => {
    const loaded = await openModel(values.model, dev, { revision: values.revision, output, signal });
    await openAdapter(loaded.model, values.adapter, output, signal);
    const data = await openData(values.data, loaded, output, { reading: readingOf(values), rowLimit: values.rows, signal });
    const meter = evaluator(loaded.model);
    const shape = { layout: loaded.model.batchLayout, lengthLimit: longestLength(data.examples) };
    const { loss, tokenCount } = await meter.run(evaluationSequence(data.examples, values["batch-size"], shape));
    meter.dispose();
    const perplexity = Math.exp(loss);
    output.say(`loss ${loss.toFixed(4)} over ${grouped(tokenCount)} tokens, perplexity ${perplexity.toFixed(3)}`);

    const match = values.generate ? await exactMatch(loaded, data, { maxNewTokens: values["max-new-tokens"], signal, output }) : null;
    if (match) {
      output.say(`exact match ${(100 * match.share).toFixed(1)} % of ${grouped(match.answers.length)} rows`);
      for (const line of failedLines(match.answers, output.columns)) output.say(line);
    }
    output.result({ loss, perplexity, tokens: tokenCount, exactMatch: match?.share ?? null });
    return 0;
  });
}

export const evalCommand = defineCommand({
  name: "eval",
  makes: "text",
  summary: "Measure a model on a data file: mean loss over completion tokens, perplexity, exact matches.",
  flags,
  examples: ["lowrank eval --model ./model --adapter run --data test.jsonl --generate"],
  run: runEval,
});
