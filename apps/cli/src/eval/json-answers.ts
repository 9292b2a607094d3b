import type { Pair } from "./overlap.js";

/** How answers that should be JSON compare with what they should be. */
export interface JsonScores {
  /** Rows whose expected answer is a JSON object or list. */
  readonly rowCount: number;
  /** The share of them whose answer is JSON. */
  readonly validShare: number;
  /** The share of all values in the expected answers that the answers have in the same place. */
  readonly fieldShare: number;
}

/** Compares the answers that should be JSON, value by value; null where no answer should be. */
export function jsonScores(pairs: readonly Pair[]): JsonScores | null {
  let [rowCount, valid, fields, right] = [0, 0, 0, 0];
  for (const { expected, answer } of pairs) {
    const wanted = parsed(expected);
    if (typeof wanted !== "object" || wanted === null) continue;
    rowCount++;
    const given = parsed(answer);
    if (given !== undefined) valid++;
    const [own, reference] = [leavesOf(given), leavesOf(wanted)];
    for (const [place, value] of reference) {
      fields++;
      if (own.get(place) === value) right++;
    }
  }
  return rowCount === 0 ? null : { rowCount, validShare: valid / rowCount, fieldShare: right / Math.max(1, fields) };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // it is not JSON
  }
}

/** The values of a JSON value by their places in it; an empty object or list is a value. */
function leavesOf(value: unknown): Map<string, string> {
  const leaves = new Map<string, string>();
  const waiting: [string, unknown][] = [["", value]];
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const [place, item] = next;
    const entries = typeof item === "object" && item !== null ? Object.entries(item) : [];
    if (entries.length === 0) leaves.set(place, JSON.stringify(item) ?? "");
    for (const [key, inner] of entries) waiting.push([`${place}/${key}`, inner]);
  }
  return leaves;
}
