import { basename, isAbsolute } from "node:path";
import { cardName, modelCard } from "../card/model-card.js";
import type { Exporting } from "./format.js";
import type { ExportedRun } from "./source.js";

/** Writes the card of what is exported beside it: base, settings, losses and the last evaluation of the run that made it. */
export async function writeCard(
  { source, adapter, isMerged, folder, files }: Exporting,
  { libraryName, use }: { readonly libraryName: "peft" | "transformers" | "gguf" | "mlx"; readonly use: string },
): Promise<void> {
  const { base, license, name, run } = source;
  const isAdapter = adapter !== null && !isMerged;
  const what = isAdapter
    ? `An adapter (${adapter.method.name}) for \`${base}\``
    : base === source.path
      ? `\`${base}\``
      : `\`${base}\`, fine-tuned`;
  const text = modelCard({
    title: name,
    baseModel: base,
    relation: isAdapter ? "adapter" : "finetune",
    libraryName,
    license,
    tags: adapter ? [adapter.method.name] : [],
    datasets: run ? dataOf(run) : [],
    lead: `${what}, by [Lowrank](https://www.npmjs.com/package/lowrank).`,
    sections: [{ heading: "Use", body: use }, ...(run ? sectionsOf(run) : [])],
  });
  await files.write(files.join(folder, cardName), new TextEncoder().encode(text));
}

/** What the run learned from, each once, without its weight. */
function dataOf({ settings }: ExportedRun): readonly string[] {
  const { data } = settings;
  return typeof data === "string" ? [...new Set(data.split(",").map((path) => path.replace(/:[\d.]+$/, "")))] : [];
}

/** Rows of a loss table: more cannot be told apart in a text. */
const mostRows = 12;

function sectionsOf(run: ExportedRun): readonly { readonly heading: string; readonly body: string }[] {
  const settings = Object.entries(run.settings)
    .filter(([, value]) => value !== null && value !== "")
    .map(([name, value]) => `| ${name} | ${cell(value)} |`);
  const losses = run.lines.flatMap(({ step, fields }) => (typeof fields["loss"] === "number" ? [{ step, loss: fields["loss"] }] : []));
  const evaluations = run.lines.flatMap(({ step, fields }) =>
    typeof fields["evalLoss"] === "number" ? [{ step, loss: fields["evalLoss"] }] : [],
  );
  const table = (points: readonly { readonly step: number; readonly loss: number }[]): string =>
    ["| step | loss |", "|---|---|", ...thinned(points).map(({ step, loss }) => `| ${step} | ${loss.toFixed(4)} |`)].join("\n");
  return [
    { heading: "Training", body: [`${run.steps} steps.`, ["| setting | value |", "|---|---|", ...settings].join("\n")].join("\n\n") },
    ...(losses.length > 0 ? [{ heading: "Loss", body: table(losses) }] : []),
    ...(evaluations.length > 0 ? [{ heading: "Evaluation on held-out rows", body: table(evaluations) }] : []),
  ];
}

/** A value in a cell: what would end the cell is shown, and of a path of this machine its end alone, since cards are published. */
function cell(value: unknown): string {
  const text = String(value);
  return (isAbsolute(text) ? basename(text) : text).replace(/[|\\]/g, "\\$&").replace(/\s+/g, " ");
}

/** The first and the last, and some between. */
function thinned<T>(points: readonly T[]): readonly T[] {
  if (points.length <= mostRows) return points;
  return Array.from({ length: mostRows }, (_, i) => points[Math.round((i * (points.length - 1)) / (mostRows - 1))] as T);
}
