import { isAbsolute } from "node:path";
import { cardName, modelCard } from "../card/model-card.js";
import { shownPath } from "../report/path.js";
import type { Exporting } from "./format.js";
import type { ExportedRun, ExportSource } from "./source.js";

/** What a card is of. */
export interface CardSubject {
  readonly source: Pick<ExportSource, "base" | "license" | "name" | "path" | "run">;
  /** The adapter's method; null where it is a model. */
  readonly method: string | null;
  /** An adapter's method where it is part of the model. */
  readonly isMerged?: boolean;
}

/** Which library opens it, and how, in Markdown. */
export interface CardUse {
  readonly libraryName: "peft" | "transformers";
  readonly use: string;
}

/** The card of an adapter or a model: base, settings, losses and evaluation of the run that made it. */
export function cardText({ source, method, isMerged = false }: CardSubject, { libraryName, use }: CardUse): string {
  const { base, license, name, path, run } = source;
  const isAdapter = method !== null && !isMerged;
  const own = shownPath(base);
  const what = isAdapter ? `An adapter (${method}) for \`${own}\`` : base === path ? `\`${name}\`` : `\`${own}\`, fine-tuned`;
  return modelCard({
    title: name,
    baseModel: base,
    relation: isAdapter ? "adapter" : "finetune",
    libraryName,
    license,
    tags: method === null ? [] : [method],
    datasets: run ? dataOf(run) : [],
    lead: `${what}, by [Lowrank](https://www.npmjs.com/package/lowrank).`,
    sections: [{ heading: "Use", body: use }, ...(run ? sectionsOf(run) : [])],
  });
}

/** Writes the card of what is exported beside it. */
export async function writeCard({ source, adapter, isMerged, folder, files }: Exporting, use: CardUse): Promise<void> {
  const text = cardText({ source, method: adapter?.method.name ?? null, isMerged }, use);
  await files.write(files.join(folder, cardName), new TextEncoder().encode(text));
}

/** How PEFT puts an adapter on its base. */
export function peftUse(base: string, name: string): CardUse {
  const lines = [
    "from peft import PeftModel",
    "from transformers import AutoModelForCausalLM",
    "",
    `model = AutoModelForCausalLM.from_pretrained(${JSON.stringify(shownPath(base))})`,
    `model = PeftModel.from_pretrained(model, ${JSON.stringify(name)})`,
  ];
  return { libraryName: "peft", use: `\`\`\`python\n${lines.join("\n")}\n\`\`\`` };
}

/** How transformers opens a model. */
export function transformersUse(name: string): CardUse {
  const lines = [
    "from transformers import AutoModelForCausalLM",
    "",
    `model = AutoModelForCausalLM.from_pretrained(${JSON.stringify(name)})`,
  ];
  return { libraryName: "transformers", use: `\`\`\`python\n${lines.join("\n")}\n\`\`\`` };
}

/** The data sets of the hub that the run learned from, each once, without revision and weight. */
function dataOf({ settings }: ExportedRun): readonly string[] {
  const { data } = settings;
  if (typeof data !== "string") return [];
  const named = data.split(/, ?/).flatMap((path) => (path.startsWith("hub:") ? [path.slice(4).replace(/[@:].*$/, "")] : []));
  return [...new Set(named)];
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

/** A value in a cell: what would end the cell is shown, and of a path of this machine its end alone. */
function cell(value: unknown): string {
  // Several data files are one text.
  const parts = String(value)
    .split(", ")
    .map((part) => (isAbsolute(part) ? shownPath(part) : part));
  return parts.join(", ").replace(/[|\\]/g, "\\$&").replace(/\s+/g, " ");
}

/** The first and the last, and some between. */
function thinned<T>(points: readonly T[]): readonly T[] {
  if (points.length <= mostRows) return points;
  return Array.from({ length: mostRows }, (_, i) => points[Math.round((i * (points.length - 1)) / (mostRows - 1))] as T);
}
