import { figure } from "../compare/rows.js";
import { curves } from "../report/curves.js";
import { gallery, page, type Section } from "../report/page.js";
import { heatMap } from "../report/svg.js";
import { bestMarked, htmlTable } from "../report/table.js";
import { grouped } from "../terminal/format.js";
import type { RankRun } from "./recommend.js";

/** φ between two runs' directions, mean over the layers of a name. */
export interface SimilarityMap {
  readonly heading: string;
  readonly x: string;
  readonly y: string;
  readonly rows: readonly number[];
  readonly columns: readonly number[];
  readonly values: readonly (readonly number[])[];
}

/** Singular values of what a run learned, mean over the layers of a name. */
export interface Spectrum {
  readonly layers: string;
  readonly rank: number;
  readonly values: readonly number[];
}

/** How much the layers of a name do along their new directions. */
export interface Amplification {
  readonly layers: string;
  readonly rank: number;
  readonly factor: number;
  readonly norm: number;
}

/** All that a study's page shows. */
export interface Study {
  readonly baseLoss: number;
  readonly runs: readonly RankRun[];
  readonly sets: readonly string[];
  readonly ranks: readonly number[];
  readonly sentence: string;
  /** The set of targets that the analyses are of. */
  readonly analysed: string;
  readonly spectra: readonly Spectrum[];
  readonly betweenRanks: readonly SimilarityMap[];
  readonly betweenSeeds: readonly SimilarityMap[];
  readonly amplification: readonly Amplification[];
  readonly facts: readonly (readonly [name: string, value: string])[];
}

/** Loss by rank and targets: a row a set, a column a rank (LoRA, table 6). */
export function lossRows({ sets, ranks, runs }: Pick<Study, "sets" | "ranks" | "runs">): {
  readonly head: string[];
  readonly rows: string[][];
} {
  const loss = (set: string, rank: number): string => runs.find((run) => run.set === set && run.rank === rank)?.evalLoss.toFixed(4) ?? "–";
  return {
    head: ["targets", ...ranks.map((rank) => `r = ${rank}`)],
    rows: sets.map((set) => [set, ...ranks.map((rank) => loss(set, rank))]),
  };
}

/** The study as a page of its own. */
export function studyPage(study: Study): string {
  const { runs, sets, ranks, baseLoss, analysed, spectra, betweenRanks, betweenSeeds, amplification } = study;
  const { head, rows } = lossRows(study);
  const marked = rows.map(([name = "", ...texts]) => [name, ...bestMarked(texts, texts.map(Number))]);
  const trained = sets.map((set) => [
    set,
    ...ranks.map((rank) => grouped(runs.find((run) => run.set === set && run.rank === rank)?.trainable ?? 0)),
  ]);
  const lossCurves = sets.map((set, color) => ({
    name: set,
    color,
    points: runs.filter((run) => run.set === set).map(({ rank, evalLoss }) => ({ x: rank, y: evalLoss })),
  }));
  const spectrumCurves = spectra.map(({ layers, values }, color) => ({
    name: layers,
    color,
    points: values.map((y, i) => ({ x: i + 1, y })),
  }));
  const maps = (all: readonly SimilarityMap[]): string =>
    gallery(
      all.map(({ heading, values, ...marks }) => ({ heading, body: heatMap(`${heading}: ${marks.y} and ${marks.x}`, values, marks) })),
    );
  const layers = [...new Set(amplification.map((each) => each.layers))];
  const factors = layers.map((name) => [
    name,
    ...ranks.map((rank) => figure(amplification.find((each) => each.layers === name && each.rank === rank)?.factor ?? Number.NaN)),
  ]);
  const sections: Section[] = [
    {
      heading: "Held-out loss by rank and targets",
      note: `The best of a row is marked; before training the loss was ${baseLoss.toFixed(4)}. Alpha is twice the rank, so that all ranks have one scaling. (Table 6 of the LoRA paper, on your data.)`,
      body: htmlTable("Held-out loss", head, marked),
    },
    {
      heading: "Loss curves by rank",
      body: curves(lossCurves, {
        title: "held-out loss by rank",
        x: "rank",
        y: "held-out loss",
        isLogX: true,
        hasDots: true,
        xTicks: ranks,
      }),
    },
    { heading: "Trainable parameters", body: htmlTable("Trainable parameters", head, trained) },
    {
      heading: "Singular values of what was learned",
      note: `ΔW at rank ${spectra[0]?.rank ?? 0} on ${analysed}, mean over the layers of a name. Where the curve falls steeply, a smaller rank holds nearly all of it.`,
      body: curves(spectrumCurves, { title: "singular values of the learned change", x: "index", y: "singular value", hasDots: true }),
    },
    {
      heading: "Which directions ranks share",
      note: "φ(i, j) of the first i and j right singular vectors of A: 1 (full colour) where the smaller subspace lies in the larger, 0 (no colour) where they have nothing in common. Where only the corner is coloured, the first directions are all that both ranks found. (Figure 3 of the paper.)",
      body: maps(betweenRanks),
    },
    {
      heading: "Which directions seeds share",
      note: "The same between two runs of the largest rank that began with other random values and saw the rows in another order. What both found is signal. (Figure 4 of the paper.)",
      body: maps(betweenSeeds),
    },
    {
      heading: "Amplification",
      note: "‖ΔW‖ / ‖Uᵀ W V‖ along the directions U, V of ΔW: how many times more the layer does there than the pretrained weight did. (Section 7.3 of the paper.)",
      body: htmlTable("Amplification", ["layers", ...ranks.map((rank) => `r = ${rank}`)], factors),
    },
  ];
  return page({
    title: "What rank does the data need?",
    lead: study.sentence,
    facts: study.facts,
    sections: sections.filter(({ body }) => body !== ""),
  });
}
