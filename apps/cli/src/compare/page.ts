import type { Answer } from "../eval/answers.js";
import { fullMethod, methodOf } from "../method.js";
import { parted } from "../parting.js";
import { curves, smoothed } from "../report/curves.js";
import { escaped } from "../report/html.js";
import { gallery, page } from "../report/page.js";
import { type Bar, barChart, donut, legend, lineChart } from "../report/svg.js";
import { bestMarked, htmlTable } from "../report/table.js";
import { bytes } from "../terminal/format.js";
import type { MethodResult, Quality } from "./measure.js";
import { baseRow, columnsFor, figure, percent, signed } from "./rows.js";
import type { TimedStep } from "./training.js";

/** All that a comparison's page shows. */
export interface Comparison {
  readonly base: Quality;
  readonly results: readonly MethodResult[];
  readonly steps: ReadonlyMap<string, readonly TimedStep[]>;
  /** What was compared, on what: name and value. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly generalText: string;
  /** Steps that each method was trained for. */
  readonly stepCount: number;
  /** Tokens that were decoded in each timed stretch. */
  readonly decodedTokens: number;
}

/** The comparison as a page of its own. */
export function comparisonPage(comparison: Comparison): string {
  const { base, results, steps, facts, generalText, stepCount, decodedTokens } = comparison;
  const colors = new Map(results.map(({ method }, i) => [method, i] as const));
  const color = (method: string): number => colors.get(method) ?? 0;
  const bars = (value: (result: MethodResult) => number | null, text: (result: MethodResult) => string): Bar[] =>
    results.map((result) => ({ label: result.method, value: value(result), text: text(result), color: color(result.method) }));
  const columns = columnsFor(base);
  const cells = columns.map(({ text, value, best }) => {
    const texts = results.map(text);
    return best ? bestMarked(texts, results.map(value), best === "high") : texts;
  });
  const table = htmlTable(
    "All methods",
    ["method", ...columns.map(({ name }) => name)],
    [baseRow(columns, base), ...results.map(({ method }, i) => [method, ...cells.map((column) => column[i] ?? "")])],
  );
  const scatter = results.map((result) => ({
    name: result.method,
    color: color(result.method),
    points: [{ x: result.parameters.trainable, y: result.evalLoss }],
  }));
  const axes = {
    title: "held-out loss by trainable parameters",
    x: "trainable parameters",
    y: "held-out loss",
    isLogX: true,
    isScatter: true,
  };
  const losses = results.map(({ method }) => ({
    name: method,
    color: color(method),
    points: smoothed((steps.get(method) ?? []).map(({ step, loss }) => ({ x: step, y: loss }))),
  }));
  const merged = results.filter(({ decoding }) => decoding.mergedRatio !== null);
  return page({
    title: "Methods of fine-tuning, compared",
    lead: `${results.length === 1 ? "One method" : `${results.length} methods`} trained for ${stepCount} steps from the same weights, on the same batches in the same order. ${conclusion(base, results)}`,
    facts,
    sections: [
      {
        heading: "Results",
        note: `The best of a column is marked. Before training, held-out loss was ${base.evalLoss.toFixed(4)} and loss on general text ${base.generalLoss.toFixed(4)}.`,
        body: table,
      },
      {
        heading: "Training loss",
        note: "Exponential moving average of the loss, with a factor of 0.9.",
        body: curves(losses, { title: "training loss", x: "step", y: "loss" }),
      },
      {
        heading: "Trainable share",
        note: "Trainable parameters as a share of all parameters.",
        body: gallery(
          results.map(({ method, parameters }) => ({
            heading: method,
            body: donut(
              `${method}: ${percent(parameters.trainablePercent)} trained`,
              parameters.trainablePercent / 100,
              percent(parameters.trainablePercent),
              color(method),
            ),
          })),
          true,
        ),
      },
      {
        heading: "Loss by trainable parameters",
        note: "Lower is better, further left is cheaper. The horizontal axis is logarithmic.",
        body: `<div class="chart"><div class="wide">${lineChart(scatter, axes, 980, 360)}</div><div class="narrow">${lineChart(scatter, axes, 330, 300)}</div>${legend(scatter)}</div>`,
      },
      {
        heading: "Quality, cost and side effects",
        note: `Decoding was timed by turns with the base in the same run, ${decodedTokens} tokens at a time; the dashed line is the base. General text: ${generalText}.`,
        body: gallery([
          {
            heading: "Held-out loss",
            note: "lower is better; dashed: before training",
            body: barChart(
              "held-out loss",
              bars(
                ({ evalLoss }) => evalLoss,
                ({ evalLoss }) => evalLoss.toFixed(3),
              ),
              base.evalLoss,
            ),
          },
          {
            heading: "Exact match",
            note: "share of held-out rows answered exactly",
            body: barChart(
              "exact match",
              bars(
                ({ exactMatch }) => exactMatch,
                ({ exactMatch }) => (exactMatch === null ? "no completions" : `${(100 * exactMatch).toFixed(1)} %`),
              ),
            ),
          },
          {
            heading: "Peak memory",
            note: "on the device while training",
            body: barChart(
              "peak memory",
              bars(
                ({ peakBytes }) => peakBytes,
                ({ peakBytes }) => bytes(peakBytes),
              ),
            ),
          },
          {
            heading: "Optimizer state",
            note: "AdamW's two moments",
            body: barChart(
              "optimizer state",
              bars(
                ({ parameters }) => parameters.optimizerBytes,
                ({ parameters }) => bytes(parameters.optimizerBytes),
              ),
            ),
          },
          {
            heading: "Time per step",
            note: "median, milliseconds",
            body: barChart(
              "time per step",
              bars(
                ({ stepMs }) => stepMs,
                ({ stepMs }) => figure(stepMs),
              ),
            ),
          },
          {
            heading: "Decoding, not merged",
            note: "time per token relative to the base",
            body: barChart(
              "decoding time relative to the base",
              bars(
                ({ decoding }) => decoding.ratio,
                ({ decoding }) => `${decoding.ratio.toFixed(2)}×`,
              ),
              1,
            ),
          },
          {
            heading: "Decoding, merged",
            note: "time per token relative to the base",
            body: barChart(
              "merged decoding time relative to the base",
              bars(
                ({ decoding }) => decoding.mergedRatio,
                ({ decoding, method }) =>
                  decoding.mergedRatio !== null
                    ? `${decoding.mergedRatio.toFixed(2)}×`
                    : methodOf(method) === fullMethod
                      ? "nothing to merge"
                      : "does not merge",
              ),
              merged.length > 0 ? 1 : undefined,
            ),
          },
          {
            heading: "Context positions taken",
            note: "by virtual tokens",
            body: barChart(
              "context positions",
              bars(
                ({ contextTokens }) => contextTokens,
                ({ contextTokens }) => String(contextTokens),
              ),
            ),
          },
          {
            heading: "Forgetting",
            note: "increase of the loss on general text",
            body: barChart(
              "forgetting",
              bars(
                ({ generalLoss }) => generalLoss - base.generalLoss,
                ({ generalLoss }) => signed(generalLoss - base.generalLoss),
              ),
            ),
          },
        ]),
      },
      ...(base.samples && base.samples.length > 0
        ? [
            {
              heading: "Sample answers",
              note: "Greedy answers to a few held-out prompts. What differs from the expected answer is underlined.",
              body: sampleAnswers(base.samples, [{ method: "base", samples: base.samples }, ...results]),
            },
          ]
        : []),
    ],
  });
}

/** Each prompt with its expected answer and everyone's. */
function sampleAnswers(
  prompts: readonly Answer[],
  all: readonly { readonly method: string; readonly samples?: readonly Answer[] }[],
): string {
  return prompts
    .map(({ line, prompt, expected }) => {
      const rows = all.flatMap(({ method, samples }) => {
        const answer = samples?.find((sample) => sample.line === line)?.answer;
        return answer === undefined ? [] : [`<dt>${escaped(method)}</dt>${answerCell(answer, expected)}`];
      });
      const asked = `<figcaption>${escaped(prompt.trim())}</figcaption>`;
      return `<figure class="sample">${asked}<dl class="answers"><dt>expected</dt><dd>${escaped(expected)}</dd>${rows.join("")}</dl></figure>`;
    })
    .join("\n");
}

function answerCell(answer: string, expected: string): string {
  if (answer === expected) return `<dd class="right">${escaped(answer)} ✓</dd>`;
  const { same, rest } = parted(answer, expected);
  // An answer that ends too early has nothing to underline.
  return `<dd>${escaped(same)}<mark>${escaped(rest === "" ? " (ends here)" : rest)}</mark></dd>`;
}

/** Which method came out best, and which was nearly as good for the fewest parameters. */
export function conclusion(base: Quality, results: readonly MethodResult[]): string {
  const best = [...results].sort((a, b) => a.evalLoss - b.evalLoss)[0];
  if (!best) return "";
  if (best.evalLoss >= base.evalLoss) return "None of them improved on the base: train for more steps, or with other learning rates.";
  const gained = base.evalLoss - best.evalLoss;
  const frugal = results
    .filter(({ evalLoss }) => base.evalLoss - evalLoss >= 0.95 * gained)
    .sort((a, b) => a.parameters.trainable - b.parameters.trainable)[0];
  const first = `${best.method} has the lowest held-out loss, ${best.evalLoss.toFixed(4)} from ${base.evalLoss.toFixed(4)}`;
  if (!frugal || frugal.method === best.method) return `${first}, with ${percent(best.parameters.trainablePercent)} of the parameters.`;
  return `${first}; ${frugal.method} reaches ${Math.round((100 * (base.evalLoss - frugal.evalLoss)) / gained)} % of that gain with ${percent(frugal.parameters.trainablePercent)} of the parameters.`;
}
