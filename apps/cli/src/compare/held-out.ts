import { type DataSet, type Examples, selectExamples } from "@lowrank/models";
import { UsageError } from "../failure.js";

/** Held-out rows: those of --eval-data, else every tenth row, taken out of the training rows. */
export function splitRows(
  data: DataSet<Examples>,
  heldOut: DataSet<Examples> | null,
  limit: number,
): { data: DataSet<Examples>; heldOut: DataSet<Examples> } {
  if (heldOut) return { data, heldOut };
  const count = data.examples.length;
  if (count < 10) throw new UsageError(`${data.path} has ${count} rows, too few to hold some out. Give --eval-data, or ten rows or more.`);
  const tenths = Math.floor(count / 10);
  const held = Uint32Array.from({ length: Math.min(tenths, limit) }, (_, i) => 10 * i + 9);
  const kept = Uint32Array.from({ length: count - tenths }, (_, i) => i + Math.floor(i / 9));
  return {
    data: { ...data, examples: selectExamples(data.examples, kept) },
    heldOut: { ...data, examples: selectExamples(data.examples, held) },
  };
}
