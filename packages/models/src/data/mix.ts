import { digestOf } from "@lowrank/tensor";
import type { DataNotes, DataSet } from "./data-set.js";
import { type Examples, exampleAt, lineAt, selectExamples, tokenCountAt } from "./examples.js";
import { DataError } from "./formats/error.js";

/** A data set, and how often each of its rows counts in a pass over the mixture: 2 twice, 0.5 every other row. */
export interface WeightedDataSet {
  readonly data: DataSet<Examples>;
  readonly weight: number;
}

/** Data sets one behind the other, each by its weight. Throws RangeError for a weight that is not a positive number, and DataError where the weights leave no row. */
export function mixDataSets(parts: readonly WeightedDataSet[]): DataSet<Examples> {
  const weighted = parts.map(({ data, weight }) => {
    if (!Number.isFinite(weight) || weight <= 0) throw new RangeError(`The weight of ${data.path} is ${weight}. Give a number above 0.`);
    return weight === 1 ? data.examples : repeated(data.examples, weight);
  });
  const [only] = parts;
  if (parts.length === 1 && only?.weight === 1) return only.data;
  const examples = joined(weighted);
  if (examples.length === 0) {
    const path = parts.map(({ data }) => data.path).join(", ");
    throw new DataError(`${path}: the weights leave no row. Give larger ones.`, path, 0);
  }
  const sum = (count: (data: DataSet<Examples>) => number): number => parts.reduce((total, { data }) => total + count(data), 0);
  const noteSum = (name: Exclude<keyof DataNotes, "unusedFields">): number => sum(({ notes }) => notes[name]);
  return {
    path: parts.map(({ data, weight }) => (weight === 1 ? data.path : `${data.path}:${weight}`)).join(", "),
    examples,
    truncatedCount: sum(({ truncatedCount }) => truncatedCount),
    tokenCount: sum(({ tokenCount }) => tokenCount),
    learnedTokenCount: sum(({ learnedTokenCount }) => learnedTokenCount),
    digest: digestOf(JSON.stringify(parts.map(({ data, weight }) => [data.digest, weight]))),
    notes: {
      conversationCount: noteSum("conversationCount"),
      splitCount: noteSum("splitCount"),
      splitBorderCount: noteSum("splitBorderCount"),
      extendedTurnCount: noteSum("extendedTurnCount"),
      emptyTurnCount: noteSum("emptyTurnCount"),
      unusedFields: [...new Set(parts.flatMap(({ data }) => data.notes.unusedFields))],
    },
  };
}

/** All rows as often as the weight's whole part says, and as many more, evenly spread, as its fraction says. */
function repeated(examples: Examples, weight: number): Examples {
  const { length } = examples;
  // A small share of few rows is one of them, and not none.
  const count = length === 0 ? 0 : Math.max(1, Math.round(length * weight));
  const whole = Math.floor(count / Math.max(1, length)) * length;
  const rest = count - whole;
  return selectExamples(
    examples,
    Uint32Array.from({ length: count }, (_, i) => (i < whole ? i % length : Math.floor(((i - whole) * length) / rest))),
  );
}

function joined(parts: readonly Examples[]): Examples {
  const ends: number[] = [];
  let length = 0;
  for (const part of parts) ends.push((length += part.length));
  const place = (index: number): readonly [Examples, number] => {
    const found = ends.findIndex((end) => index < end);
    return [parts[found] as Examples, index - (ends[found - 1] ?? 0)]; // below the last end
  };
  return {
    length,
    at: (index) => (index >= 0 && index < length ? exampleAt(...place(index)) : undefined),
    tokenCountAt: (index) => tokenCountAt(...place(index)),
    lineAt: (index) => lineAt(...place(index)),
    *[Symbol.iterator]() {
      for (const part of parts) yield* part;
    },
  };
}
