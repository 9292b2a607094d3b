/** A set of code points as ranges [from, to], ascending, apart from one another. */
export type CodeSet = readonly (readonly [from: number, to: number])[];

const last = 0x10ffff;

export function union(...sets: readonly CodeSet[]): CodeSet {
  const all = sets.flat().sort((a, b) => a[0] - b[0]);
  const out: [number, number][] = [];
  for (const [from, to] of all) {
    const previous = out.at(-1);
    if (previous && from <= previous[1] + 1) previous[1] = Math.max(previous[1], to);
    else out.push([from, to]);
  }
  return out;
}

export function negation(set: CodeSet): CodeSet {
  const out: [number, number][] = [];
  let from = 0;
  for (const [start, end] of set) {
    if (from < start) out.push([from, start - 1]);
    from = end + 1;
  }
  if (from <= last) out.push([from, last]);
  return out;
}

export function intersection(a: CodeSet, b: CodeSet): CodeSet {
  return negation(union(negation(a), negation(b)));
}

/** The set as a class of JavaScript's expressions with the flag u. */
export function classOf(set: CodeSet): string {
  const sign = (code: number): string => `\\u{${code.toString(16)}}`;
  return `[${set.map(([from, to]) => (from === to ? sign(from) : `${sign(from)}-${sign(to)}`)).join("")}]`;
}
