import type { Executable } from "../../graph/backend.js";
import type { Plan } from "../../kernels/kernel.js";
import { type PlanStatistics, planStatistics } from "../../kernels/statistics.js";
import { groupEntry, stepFields } from "../../kernels/wasm/driver.js";
import type { PanelLayout } from "./panel-layout.js";
import type { Step, Word } from "./steps.js";

/** An argument word that holds an address: so many bytes after the start of the workspace or of a buffer. */
export interface AddressWord {
  readonly at: number;
  readonly offset: number;
}

/** A prepared plan: its block of memory holds steps and arguments; its intermediates lie in the workspace that all plans share. */
export class CpuExecutable implements Executable {
  #statistics: PlanStatistics | null = null;
  /** For each binding, the panels as which its buffer may lie for `readingPanels`; empty where there is no such executable. */
  layouts: readonly (PanelLayout | null)[] = [];
  /** Runs the same plan on buffers that all lie so; made when first needed. */
  readingPanels: CpuExecutable | null = null;
  isDisposed = false;
  /** The workspace's generation that the argument words are of. */
  generation = -1;
  constructor(
    readonly plan: Plan,
    readonly address: number,
    readonly firstStep: number,
    readonly endStep: number,
    /** Address one past the last step of each kernel. */
    readonly kernelEnds: readonly number[],
    /** For each binding, the argument words (by number) that hold its address. */
    readonly patches: readonly (readonly AddressWord[])[],
    readonly workspaceWords: readonly AddressWord[],
    /** Estimated time. */
    readonly nanoseconds: number,
    readonly release: (executable: CpuExecutable) => void,
  ) {}

  /** Counted when somebody asks. */
  get statistics(): PlanStatistics {
    this.#statistics ??= planStatistics(this.plan);
    return this.#statistics;
  }

  dispose(): void {
    if (this.isDisposed) return;
    this.isDisposed = true;
    this.readingPanels?.dispose();
    this.release(this);
  }
}

/** Where steps, their arguments and the tables that these point to lie in a plan's own memory, in words from its start. */
export function argumentPlaces(steps: readonly Step[]): {
  readonly wordCount: number;
  readonly tables: ReadonlyMap<string, { readonly at: number; readonly values: readonly number[] }>;
  readonly blocks: ReadonlyMap<readonly Word[], number>;
} {
  let wordCount = steps.length * (stepFields.bytes / 4);
  const tables = new Map<string, { at: number; values: readonly number[] }>();
  const blocks = new Map<readonly Word[], number>();
  const reserve = (block: readonly Word[]): void => {
    blocks.set(block, wordCount);
    wordCount += block.length;
    for (let i = 0; i < block.length; i++) {
      const word = block[i] as Word; // within bounds
      if (typeof word === "number") continue;
      if (word.kind === "words") reserve(word.words);
      if (word.kind !== "constants") continue;
      const key = word.values.join();
      if (tables.has(key)) continue;
      tables.set(key, { at: wordCount, values: word.values });
      wordCount += word.values.length;
    }
  };
  for (const step of steps) reserve(step.words);
  return { wordCount, tables, blocks };
}

/** What a block of arguments takes: words with the blocks below it, and the tables that these point to. */
interface Extent {
  readonly words: number;
  readonly tables: ReadonlyMap<string, number>;
}

/** How many words `argumentPlaces` finds for steps, without saying where each lies. */
export class WordCount {
  total = 0;
  readonly #tables = new Set<string>();
  /** Those of blocks that many steps share. */
  readonly #extents = new Map<readonly Word[], Extent>();

  add({ entry, words }: Step): void {
    this.total += stepFields.bytes / 4;
    if (entry !== groupEntry) {
      this.#block(words);
      return;
    }
    // Of a group, the block is its own, and those below are its members'.
    this.total += words.length;
    for (const word of words) if (typeof word !== "number" && word.kind === "words") this.#block(word.words);
  }

  #block(block: readonly Word[]): void {
    const { words, tables } = this.#extentOf(block);
    this.total += words;
    for (const [key, length] of tables) {
      if (this.#tables.has(key)) continue;
      this.#tables.add(key);
      this.total += length;
    }
  }

  #extentOf(block: readonly Word[]): Extent {
    const known = this.#extents.get(block);
    if (known) return known;
    let words = block.length;
    const tables = new Map<string, number>();
    for (const word of block) {
      if (typeof word === "number") continue;
      if (word.kind === "constants") tables.set(word.values.join(), word.values.length);
      if (word.kind !== "words") continue;
      const below = this.#extentOf(word.words);
      words += below.words;
      for (const [key, length] of below.tables) tables.set(key, length);
    }
    const extent = { words, tables };
    this.#extents.set(block, extent);
    return extent;
  }
}
