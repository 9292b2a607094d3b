import { groupEntry } from "../../kernels/wasm/driver.js";
import type { Step, Word } from "./steps.js";

/** One step that covers the tiles of several; the driver finds the function that a tile belongs to. */
export function sideBySide(given: readonly Step[]): Step {
  const [only] = given;
  if (only && given.length === 1) return only;
  const steps = given.flatMap(membersOf);
  const words: Word[] = [steps.length];
  let [tiles, cost] = [0, 0];
  for (const step of steps) {
    words.push(tiles, step.entry, { kind: "words", words: step.words });
    tiles += step.tiles;
    cost += step.cost;
  }
  return { entry: groupEntry, tiles, words, cost };
}

/** The steps that `sideBySide` has made one of: the driver looks for functions one level deep. */
function membersOf(step: Step): Step[] {
  if (step.entry !== groupEntry) return [step];
  const count = step.words[0] as number;
  const firstTile = (i: number): number => (i < count ? (step.words[1 + 3 * i] as number) : step.tiles);
  return Array.from({ length: count }, (_, i) => {
    const tiles = firstTile(i + 1) - firstTile(i);
    const block = step.words[3 + 3 * i] as Extract<Word, { readonly kind: "words" }>;
    return { entry: step.words[2 + 3 * i] as number, tiles, words: block.words, cost: (step.cost * tiles) / step.tiles };
  });
}
