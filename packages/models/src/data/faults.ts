import { DataError } from "./formats/error.js";

/** Errors that are told at once. */
const most = 20;

/** The errors of a file's rows, which are told together. */
export class Faults {
  readonly #errors: DataError[] = [];

  constructor(readonly path: string) {}

  /** What `use` returns, or undefined where it throws DataError, which is kept. Throws all that were kept once they are 20. */
  tried<R>(use: () => R): R | undefined {
    try {
      return use();
    } catch (error) {
      if (!(error instanceof DataError)) throw error;
      this.#errors.push(error);
      if (this.#errors.length === most) this.check();
      return undefined;
    }
  }

  get isEmpty(): boolean {
    return this.#errors.length === 0;
  }

  /** Throws DataError where errors were kept. */
  check(): void {
    const [first, ...others] = this.#errors;
    if (!first) return;
    if (others.length === 0) throw first;
    const count = this.#errors.length;
    const title =
      count === most ? `${this.path}: the first ${most} rows that cannot be used:` : `${this.path}: ${count} rows cannot be used:`;
    throw new DataError([title, ...this.#errors.map(({ message }) => `  ${message}`)].join("\n"), this.path, first.line);
  }
}
