import type { DataSet } from "@lowrank/models";
import { UsageError } from "../failure.js";

/** Held-out rows: those of --eval-data, else every tenth row, taken out of the training rows. */
export function splitRows(data: DataSet, heldOut: DataSet | null, limit: number): { data: DataSet; heldOut: DataSet } {
  if (heldOut) return { data, heldOut };
  if (data.examples.length < 10)
    throw new UsageError(`${data.path} has ${data.examples.length} rows, too few to hold some out. Give --eval-data, or ten rows or more.`);
  const held = data.examples.filter((_, i) => i % 10 === 9).slice(0, limit);
  return { data: { ...data, examples: data.examples.filter((_, i) => i % 10 !== 9) }, heldOut: { ...data, examples: held } };
}
