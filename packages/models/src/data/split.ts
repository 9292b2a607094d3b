import { digestOf } from "@lowrank/tensor";
import { stringifyLossless } from "../lossless.js";
import type { DataSet } from "./data-set.js";
import { type Examples, selectExamples } from "./examples.js";
import { DataError } from "./formats/error.js";
import type { Row } from "./layouts/row.js";
import { shuffledOrder } from "./order.js";

/** What a row says, however it is written: NFKC, without case, white space as one space. Two rows with the same are one for a split. */
export function foldedText(row: Row): string {
  return foldedKey(
    row.kind === "text"
      ? row.text
      : row.kind === "completion"
        ? `${row.prompt} ${row.completion}`
        : row.messages
            .map(({ role, content, tool_calls: calls }) => `${role}: ${content ?? ""} ${calls ? stringifyLossless(calls) : ""}`)
            .join(" "),
  );
}

/** A digest of a text without what foldedText leaves out. */
export function foldedKey(text: string): string {
  // By way of large letters, ß is ss and both forms of σ are one.
  return digestOf(text.normalize("NFKC").toUpperCase().toLowerCase().replace(/\s+/g, " ").trim());
}

/**
 * Takes a share of a data set's rows out of it, chosen by the seed; `keys` has for each example what its row says. Rows that say the same stay
 * on one side. Throws DataError where either side would be empty.
 */
export function splitDataSet(
  data: DataSet<Examples>,
  keys: readonly string[],
  { share, seed }: { readonly share: number; readonly seed: number },
): { readonly data: DataSet<Examples>; readonly heldOut: DataSet<Examples> } {
  const groups = new Map<string, number[]>();
  for (const [i, key] of keys.entries()) groups.get(key)?.push(i) ?? groups.set(key, [i]);
  const all = [...groups.values()];
  const wanted = Math.max(1, Math.round(share * keys.length));
  const isHeld = new Uint8Array(keys.length);
  let count = 0;
  const hold = (group: readonly number[]): void => {
    for (const i of group) isHeld[i] = 1;
    count += group.length;
  };
  const order = Array.from(shuffledOrder(all.length, seed, 0), (index) => all[index] as readonly number[]); // index < length
  for (const group of order) if (count + group.length <= wanted) hold(group);
  // Equal rows may all be more than what is wanted.
  if (count === 0) hold(order.reduce((least, group) => (group.length < least.length ? group : least), order[0] ?? []));
  if (count === 0 || count === keys.length)
    throw new DataError(
      `${data.path}: ${keys.length} rows, ${all.length} of them different, are too few to hold ${share} of them out. Give more rows.`,
      data.path,
      0,
    );
  const positions = (side: number): number[] => keys.flatMap((_, i) => (isHeld[i] === side ? [i] : []));
  const part = (side: number): DataSet<Examples> => {
    const examples = selectExamples(data.examples, positions(side));
    let [tokenCount, learnedTokenCount] = [0, 0];
    for (const { ids, labels } of examples) {
      tokenCount += ids.length;
      for (let i = 1; i < labels.length; i++) if (labels[i] === ids[i]) learnedTokenCount++;
    }
    return { ...data, examples, tokenCount, learnedTokenCount, digest: digestOf(`${data.digest} ${share} ${seed} ${side}`) };
  };
  return { data: part(0), heldOut: part(1) };
}
