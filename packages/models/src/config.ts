import { CheckpointError } from "@lowrank/tensor";

/** A config.json as it was read, with the fields that the model needs checked and filled in. */
export interface ModelConfig {
  readonly model_type: string;
  readonly vocab_size: number;
  readonly tie_word_embeddings: boolean;
  readonly eos_token_id?: number | readonly number[] | null;
  readonly bos_token_id?: number | null;
  readonly [field: string]: unknown;
}

/** Reads fields of a config.json and collects everything that is wrong with them, so that one error names it all. */
export class ConfigFields {
  readonly #problems: string[] = [];

  constructor(
    private readonly json: Readonly<Record<string, unknown>>,
    private readonly path: string,
  ) {}

  /** A positive integer; `fallback` where it is absent or null, an error where there is none. */
  count(name: string, fallback?: number): number {
    return this.#read(name, fallback, "a positive integer", (value) => Number.isSafeInteger(value) && (value as number) > 0);
  }

  /** A finite number above 0. */
  positive(name: string, fallback?: number): number {
    return this.#read(name, fallback, "a number above 0", (value) => Number.isFinite(value) && (value as number) > 0);
  }

  flag(name: string, fallback?: boolean): boolean {
    return this.#read(name, fallback, "true or false", (value) => typeof value === "boolean");
  }

  choice<T extends string>(name: string, options: readonly T[], fallback?: T): T {
    return this.#read(name, fallback, `one of ${options.join(", ")}`, (value) => options.includes(value as T));
  }

  /** Notes something that is wrong beyond one field's type. */
  problem(text: string): void {
    this.#problems.push(text);
  }

  /** The raw value. */
  get(name: string): unknown {
    return this.json[name];
  }

  /** The whole config with the checked fields over it. Throws CheckpointError when anything was wrong. */
  finish<T extends object>(checked: T): Readonly<Record<string, unknown>> & T {
    if (this.#problems.length > 0) {
      throw new CheckpointError(`${this.path}: ${this.#problems.join("; ")}. Correct the file or fetch it again.`, this.path);
    }
    return { ...this.json, ...checked };
  }

  #read<T>(name: string, fallback: T | undefined, what: string, fits: (value: unknown) => boolean): T {
    const value = this.json[name] ?? fallback;
    if (value === undefined) this.#problems.push(`"${name}" is missing (${what})`);
    else if (!fits(value)) this.#problems.push(`"${name}" is ${shorten(value)}, not ${what}`);
    return value as T;
  }
}

function shorten(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** End tokens as a list: `eos_token_id` is a number, a list or null. */
export function endTokens(value: unknown): readonly number[] {
  const list = Array.isArray(value) ? value : [value];
  return list.filter((item): item is number => Number.isSafeInteger(item) && (item as number) >= 0);
}
