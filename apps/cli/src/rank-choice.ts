import type { KeptReport, RankChoice } from "@lowrank/lora";
import { UsageError } from "./failure.js";
import type { Flags } from "./flags.js";
import type { Output } from "./output.js";
import { tableLines } from "./terminal/format.js";

/** Flags that say how large pairs become. */
export const rankFlags = {
  rank: { type: "integer", min: 1, help: "one rank for all layers" },
  energy: { type: "number", above: 0, help: "on each layer the smallest rank that keeps this share of its change, such as 0.95" },
} as const satisfies Flags;

/** What the flags choose. Throws UsageError unless one of the two is given. */
export function rankChoice({ rank, energy }: { readonly rank: number | undefined; readonly energy: number | undefined }): RankChoice {
  if (rank !== undefined && energy === undefined) return { rank };
  if (energy !== undefined && rank === undefined) {
    if (energy > 1) throw new UsageError(`--energy is ${energy}. Give a share above 0, up to 1, such as 0.95.`);
    return { energy };
  }
  throw new UsageError("Either --rank or --energy says how large the pairs become. Give one of the two.");
}

const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;

/** A line a layer, and what all of them keep. */
export function sayKept({ layers, kept }: KeptReport, output: Output): void {
  const rows = layers.map(({ name, rank, kept: own }) => [name, String(rank), percent(own)]);
  for (const line of tableLines([["layer", "rank", "kept"], ...rows], { arePaths: true, width: output.tableColumns })) output.say(line);
  output.say(`${percent(kept)} of the change is kept (squared Frobenius norm, all layers together)`);
}
