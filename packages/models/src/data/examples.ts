import { type Example, ignoredLabel } from "./example.js";

/** Examples by number: an array of them, or a table that makes each when it is asked for. */
export interface Examples extends Iterable<Example> {
  readonly length: number;
  at(index: number): Example | undefined;
  /** Tokens of an example, where that is known without making it. */
  tokenCountAt?(index: number): number;
  /** The line of an example's row, likewise. */
  lineAt?(index: number): number;
}

/** The example at a position below the length. */
export function exampleAt(examples: Examples, index: number): Example {
  return examples.at(index) as Example;
}

/** Tokens of the example at a position below the length. */
export function tokenCountAt(examples: Examples, index: number): number {
  return examples.tokenCountAt ? examples.tokenCountAt(index) : exampleAt(examples, index).ids.length;
}

/** The line of the example at a position below the length. */
export function lineAt(examples: Examples, index: number): number {
  return examples.lineAt ? examples.lineAt(index) : exampleAt(examples, index).line;
}

/** Tokens of the longest example; 0 where there is none. */
export function longestLength(examples: Examples): number {
  let longest = 0;
  for (let i = 0; i < examples.length; i++) longest = Math.max(longest, tokenCountAt(examples, i));
  return longest;
}

/** Some of the examples, by their positions; nothing is copied. */
export function selectExamples(examples: Examples, positions: ArrayLike<number>): Examples {
  const place = (index: number): number => positions[index] ?? -1;
  return {
    length: positions.length,
    at: (index) => (index >= 0 && index < positions.length ? exampleAt(examples, place(index)) : undefined),
    tokenCountAt: (index) => tokenCountAt(examples, place(index)),
    lineAt: (index) => lineAt(examples, place(index)),
    *[Symbol.iterator]() {
      for (let i = 0; i < positions.length; i++) yield exampleAt(examples, place(i));
    },
  };
}

/** Rows of a page. */
const pageRows = 4096;

/** Some examples one behind the other. */
interface Page {
  readonly tokens: Uint16Array | Uint32Array;
  /** A bit a token: whether it is to be predicted. */
  readonly learned: Uint8Array;
  /** Where each example begins, and where the last one ends. */
  readonly starts: Uint32Array;
  readonly lines: Uint32Array;
}

/**
 * Examples in typed arrays, in which millions take little more than two bytes a token (four where the vocabulary has more than 65,536),
 * and no objects.
 */
export class ExampleTable implements Examples {
  readonly #pages: Page[] = [];
  readonly #isSmall: boolean;
  // The page that is being filled; the memory for its tokens grows, and serves all pages.
  #tokens: Uint16Array | Uint32Array;
  #learned = new Uint8Array(0);
  readonly #starts = new Uint32Array(pageRows + 1);
  readonly #lines = new Uint32Array(pageRows);
  #count = 0;

  /** `vocabSize`: no token is above or equal to it. */
  constructor(vocabSize: number = Number.POSITIVE_INFINITY) {
    this.#isSmall = vocabSize <= 2 ** 16;
    this.#tokens = this.#isSmall ? new Uint16Array(0) : new Uint32Array(0);
  }

  get length(): number {
    return this.#pages.length * pageRows + this.#count;
  }

  /** Adds an example. Throws RangeError where a label is neither its token nor -100, or a token does not fit. */
  append({ ids, labels, line }: Example): void {
    const start = this.#starts[this.#count] as number; // as long as a page and one more
    const end = start + ids.length;
    if (end > this.#tokens.length) this.#grow(end);
    const tokens = this.#tokens;
    const learned = this.#learned;
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i] as number; // i < length
      const label = labels[i];
      tokens[start + i] = id;
      if (tokens[start + i] !== id || (label !== id && label !== ignoredLabel)) {
        throw new RangeError(
          `ExampleTable: token ${id} with label ${label} at position ${i} cannot be kept. A token is below the vocabulary's size, a label its token or ${ignoredLabel}.`,
        );
      }
      if (label === id) (learned[(start + i) >> 3] as number) |= 1 << ((start + i) & 7);
      else (learned[(start + i) >> 3] as number) &= ~(1 << ((start + i) & 7));
    }
    this.#lines[this.#count++] = line;
    this.#starts[this.#count] = end;
    if (this.#count === pageRows) this.#closePage();
  }

  at(index: number): Example | undefined {
    if (index < 0 || index >= this.length) return undefined;
    const { tokens, learned, starts, lines } = this.#page(index);
    const row = index % pageRows;
    const start = starts[row] as number; // row < pageRows
    const count = (starts[row + 1] as number) - start;
    const ids = new Array<number>(count);
    const labels = new Array<number>(count);
    for (let i = 0; i < count; i++) {
      const at = start + i;
      const id = tokens[at] as number; // below the end of the row
      ids[i] = id;
      labels[i] = ((learned[at >> 3] as number) >> (at & 7)) & 1 ? id : ignoredLabel;
    }
    return { line: lines[row] as number, ids, labels };
  }

  tokenCountAt(index: number): number {
    const { starts } = this.#page(index);
    const row = index % pageRows;
    return (starts[row + 1] ?? 0) - (starts[row] ?? 0);
  }

  lineAt(index: number): number {
    return this.#page(index).lines[index % pageRows] ?? 0;
  }

  *[Symbol.iterator](): Iterator<Example> {
    for (let i = 0; i < this.length; i++) yield exampleAt(this, i);
  }

  #page(index: number): Page {
    const open = { tokens: this.#tokens, learned: this.#learned, starts: this.#starts, lines: this.#lines };
    return this.#pages[Math.floor(index / pageRows)] ?? open;
  }

  #closePage(): void {
    const end = this.#starts[pageRows] as number; // its last
    this.#pages.push({
      tokens: this.#tokens.slice(0, end),
      learned: this.#learned.slice(0, (end + 7) >> 3),
      starts: this.#starts.slice(),
      lines: this.#lines.slice(),
    });
    this.#count = 0;
  }

  #grow(least: number): void {
    const size = Math.max(2 ** 16, 2 ** Math.ceil(Math.log2(least)));
    const tokens = this.#isSmall ? new Uint16Array(size) : new Uint32Array(size);
    tokens.set(this.#tokens);
    const learned = new Uint8Array(size / 8);
    learned.set(this.#learned);
    this.#tokens = tokens;
    this.#learned = learned;
  }
}
