import { mostSteps } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";

/** What an expression found in a text: the whole match and its groups, or null. */
export type Found = readonly (string | undefined)[] | null;

/** Runs an expression on a text for at most `limitMs`; "late" where that was not enough. */
export type TimedMatch = (source: string, flags: string, text: string, limitMs: number) => Found | "late";

let timedMatch: TimedMatch | null = null;

/** Says how expressions run that may backtrack for ever. Node's entry does; where nobody has, such expressions are refused. Gives the one before. */
export function setTimedMatch(match: TimedMatch | null): TimedMatch | null {
  const before = timedMatch;
  timedMatch = match;
  return before;
}

/** Steps of backtracking that cost no time worth measuring: some milliseconds; and the most that run where nothing could stop more. */
const fewSteps = 1e6;
const mostUntimedSteps = 1e8;
/** Characters of an expression; those of PEFT's own configurations have some hundred. */
const longestSource = 20_000;
/** Time that one expression has, over all names: far more than any that ends takes on a busy machine. */
const limitMs = 2000;

/**
 * A regular expression from a file. Such an expression can take exponential time on a short name, so that one that might is run under a
 * time limit, or refused where there is no way to set one; all usual ones are told by their form and run at once.
 */
export class Pattern {
  readonly #expression: RegExp;
  #leftMs = limitMs;
  /** Names are many, their lengths few. */
  readonly #stepsByLength = new Map<number, number>();

  /** `source` in Python's syntax as far as JavaScript shares it; `what` is what errors call it. Throws AdapterError for an invalid one. */
  constructor(
    source: string,
    readonly what: string,
    /** The expression around it, `$` standing for the source. */
    frame: (source: string) => string = (whole) => `^(?:${whole})$`,
  ) {
    this.source = source;
    if (source.length > longestSource)
      throw new AdapterError(`${this.#named} has ${source.length} characters, more than ${longestSource}. Pass a list of names.`, [what]);
    this.#expression = this.#checked(() => {
      // Alone first: framed, "a)(b" would be valid.
      new RegExp(pythonGroups(source), "s");
      return new RegExp(frame(pythonGroups(source)), "s");
    });
  }

  readonly source: string;

  /** True where it fits the name. Throws AdapterError where that cannot be found out in time. */
  test(name: string): boolean {
    return this.exec(name) !== null;
  }

  /** The match and its groups, or null. Throws AdapterError as `test` does. */
  exec(name: string): Found {
    const { source, flags } = this.#expression;
    const timed = timedMatch;
    if (this.#steps(name.length) <= (timed ? fewSteps : mostUntimedSteps)) return this.#checked(() => this.#expression.exec(name));
    if (!timed)
      throw new AdapterError(`${this.#named} may take time without end to match, and nothing here can stop it. Pass a list of names.`, [
        this.source,
      ]);
    const start = performance.now();
    const found = this.#leftMs < 1 ? "late" : this.#checked(() => timed(source, flags, name, Math.ceil(this.#leftMs)));
    this.#leftMs -= performance.now() - start;
    if (found === "late")
      throw new AdapterError(
        `${this.#named} was not through with the model's names after ${limitMs / 1000} s. Write it without repeated groups in repeated groups, or pass a list of names.`,
        [this.source],
      );
    return found;
  }

  #steps(length: number): number {
    const steps = this.#stepsByLength.get(length) ?? mostSteps(pythonGroups(this.source), length);
    this.#stepsByLength.set(length, steps);
    return steps;
  }

  get #named(): string {
    return `${this.what}: the regular expression "${shorten(this.source)}"`;
  }

  #checked<R>(run: () => R): R {
    try {
      return run();
    } catch (error) {
      const reason = error instanceof Error ? shorten(error.message) : String(error);
      throw new AdapterError(
        `${this.what}: "${shorten(this.source)}" is not a valid regular expression (${reason}). Correct it or pass a list of names.`,
        [this.source],
      );
    }
  }
}

function pythonGroups(source: string): string {
  return source.replaceAll("(?P<", "(?<");
}

function shorten(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
