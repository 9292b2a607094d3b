import { type DataSet, type Examples, type LoadedModel, splitDataSet, type Tokenizer } from "@lowrank/models";
import { openData, readingOf } from "../data/open.js";
import { UsageError } from "../failure.js";
import type { Output } from "../output.js";
import { grouped } from "../terminal/format.js";
import type { TrainValues } from "./flags.js";

/** The rows to train on, and those that are held out. Rejects with UsageError for flags that do not go together. */
export async function openRows(
  values: TrainValues,
  loaded: LoadedModel & { readonly tokenizer: Tokenizer },
  output: Output,
  signal: AbortSignal,
): Promise<{ readonly data: DataSet<Examples>; readonly heldOut: DataSet<Examples> | null }> {
  const reading = readingOf(values);
  const share = values["eval-split"];
  const names = values["eval-data"];
  if (share !== undefined && names !== undefined) throw new UsageError("--eval-split and --eval-data are both given. Keep one of them.");
  const { keys, ...data } = await openData(values.data, loaded, output, { reading: { ...reading, hasKeys: share !== undefined }, signal });
  if (share !== undefined) {
    const isWeighted = keys.length !== data.examples.length;
    if (isWeighted) throw new UsageError("--eval-split takes files without weights. Leave the weights out, or give --eval-data.");
    const split = splitDataSet(data, keys, { share, seed: values.seed });
    output.note(`held out: ${grouped(split.heldOut.examples.length)} of ${grouped(data.examples.length)} rows`);
    return split;
  }
  const heldOut = names === undefined ? null : await openData(names, loaded, output, { reading, rowLimit: values["eval-rows"], signal });
  return { data, heldOut };
}
