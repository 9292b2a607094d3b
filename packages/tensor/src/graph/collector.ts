/** Collects garbage at once. */
export type Collector = () => void;

/** Finds the collector of this environment; null where nobody can ask for a collection, as in a browser. */
let find: () => Collector | null = () => null;
let found: Collector | null | undefined;

/** Tells how the collector is found when it is first needed. Called once by the entry file. */
export function setCollector(how: () => Collector | null): void {
  find = how;
  found = undefined;
}

/** Collects garbage at once; false where nobody can ask for that. */
export function collectGarbage(): boolean {
  if (found === undefined) found = find();
  found?.();
  return found !== null;
}
