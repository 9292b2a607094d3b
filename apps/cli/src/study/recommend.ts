/** One run of a rank study: its held-out loss, and how many directions hold 95 % of what it learned. */
export interface RankRun {
  readonly set: string;
  readonly rank: number;
  readonly evalLoss: number;
  readonly trainable: number;
  /** Mean over the layers. */
  readonly effectiveRank: number;
}

/** The run that is recommended and why, in a sentence. */
export interface Recommendation {
  readonly set: string;
  readonly rank: number;
  readonly sentence: string;
}

/** The smallest share of the best run's gain that a cheaper run must reach. */
const enough = 0.98;

/** The run with the fewest parameters among those that reach 98 % of the best run's gain over the base. */
export function recommended(runs: readonly RankRun[], baseLoss: number): Recommendation | null {
  const best = [...runs].sort((x, y) => x.evalLoss - y.evalLoss)[0];
  if (!best) return null;
  const gain = baseLoss - best.evalLoss;
  if (!(gain > 0))
    return {
      set: best.set,
      rank: best.rank,
      sentence: "No rank can be recommended: none of the runs improved on the base; train for more steps.",
    };
  const cheapest = runs
    .filter(({ evalLoss }) => baseLoss - evalLoss >= enough * gain)
    .sort((x, y) => x.trainable - y.trainable || x.evalLoss - y.evalLoss)[0] as RankRun; // the best run is among them
  const largest = runs.filter(({ set }) => set === cheapest.set).sort((x, y) => y.rank - x.rank)[0] ?? cheapest;
  const share = Math.round((100 * (baseLoss - cheapest.evalLoss)) / gain);
  const directions = `at rank ${largest.rank}, ${largest.effectiveRank.toFixed(1)} directions a layer hold 95 % of what is learned`;
  const reason =
    cheapest === best
      ? `it has the lowest held-out loss of all, ${best.evalLoss.toFixed(4)} from ${baseLoss.toFixed(4)}, and nothing cheaper comes within 2 % of its gain; ${directions}`
      : `it reaches ${share} % of the gain of the best run (rank ${best.rank} on ${best.set}, ${best.evalLoss.toFixed(4)} from ${baseLoss.toFixed(4)}) with the fewest parameters, and ${directions}`;
  return { set: cheapest.set, rank: cheapest.rank, sentence: `Take rank ${cheapest.rank} on ${cheapest.set}: ${reason}.` };
}
