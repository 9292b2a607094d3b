/** Code points of a class: the borders at which it begins and ends, ascending; the first one begins it. */
export type Ranges = Uint32Array;

/** Ranges as a table's text has them: the distances between the borders, in base 36. */
export function rangesOf(table: string): Ranges {
  const borders = Uint32Array.from(table.split(","), (distance) => Number.parseInt(distance, 36));
  for (let i = 1; i < borders.length; i++) borders[i] = (borders[i] as number) + (borders[i - 1] as number);
  return borders;
}

/** Whether a code point is within ranges. */
export function isWithin(ranges: Ranges, code: number): boolean {
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ranges[middle] as number) <= code) low = middle + 1;
    else high = middle;
  }
  return low % 2 === 1;
}
