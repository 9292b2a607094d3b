import type { Step, Word } from "./steps.js";

/** Steps with each word that is an address exchanged for another. */
export function movedSteps(steps: readonly Step[], change: (word: Exclude<Word, number>) => Word): Step[] {
  const move = (word: Word): Word => {
    if (typeof word === "number") return word;
    return word.kind === "words" ? { kind: "words", words: word.words.map(move) } : change(word);
  };
  return steps.map((step) => ({ ...step, words: step.words.map(move) }));
}
