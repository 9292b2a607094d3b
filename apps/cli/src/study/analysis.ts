import type { RunState } from "@lowrank/models";
import { withDevice } from "../session.js";
import type { Study } from "./page.js";
import { kindOf, meansByKind, savedDirections, similarityMaps } from "./pairs.js";
import { type RankRun, recommended } from "./recommend.js";
import type { TargetSet } from "./targets.js";

/** What is kept of a run. */
export interface StudyRun extends RankRun {
  readonly settings: RunState["settings"];
  readonly seed: number;
  readonly folder: string;
  readonly layers: readonly {
    readonly name: string;
    readonly singularValues: readonly number[];
    readonly norm: number;
    readonly amplification: number;
  }[];
}

/** What the runs say together. Directions and spectra are those of the first set of targets. */
export async function analysed(
  runs: readonly StudyRun[],
  {
    sets,
    ranks,
    baseLoss,
    seed,
    facts,
  }: Pick<Study, "ranks" | "baseLoss" | "facts"> & { readonly sets: readonly TargetSet[]; readonly seed: number },
): Promise<Study> {
  const [set] = sets as [TargetSet]; // there is at least one
  const own = runs.filter((run) => run.set === set.name && run.seed === seed);
  const largest = own.at(-1) as StudyRun; // the ranks rise, and there is at least one
  const other = runs.find((run) => run.seed !== seed);
  // As in the paper, 8 beside the largest; else the middle rank.
  const smaller = own.find(({ rank }) => rank === 8 && rank < largest.rank) ?? own[Math.floor((own.length - 1) / 2)];
  const maps = await withDevice("cpu", null, async (dev) => {
    const most = await savedDirections(largest.folder, dev);
    const few = smaller && smaller !== largest ? await savedDirections(smaller.folder, dev) : null;
    const again = other ? await savedDirections(other.folder, dev) : null;
    const seeds = { y: `i, seed ${seed}`, x: `j, seed ${seed + 1}` };
    return {
      betweenRanks: few ? similarityMaps(few, most, { y: `i, r = ${smaller?.rank}`, x: `j, r = ${largest.rank}` }) : [],
      betweenSeeds: again ? similarityMaps(most, again, seeds) : [],
    };
  });
  const spectra = [...meansByKind(largest.layers.map(({ name, singularValues }) => ({ name, values: singularValues })))].map(
    ([layers, values]) => ({ layers, rank: largest.rank, values }),
  );
  const amplification = own.flatMap(({ rank, layers }) =>
    [...meansByKind(layers.map(({ name, amplification: factor, norm }) => ({ name, values: [factor, norm] })))].map(
      ([kind, [factor = Number.NaN, norm = Number.NaN]]) => ({ layers: kind, rank, factor, norm }),
    ),
  );
  const first = runs.filter((run) => run.seed === seed);
  return {
    baseLoss,
    runs: first,
    sets: sets.map(({ name }) => name),
    ranks,
    sentence: recommended(first, baseLoss)?.sentence ?? "",
    analysed: `${set.name} (${[...new Set(largest.layers.map(({ name }) => kindOf(name)))].join(", ")})`,
    spectra,
    ...maps,
    amplification,
    facts,
  };
}
