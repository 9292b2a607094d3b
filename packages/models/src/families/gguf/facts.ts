import { CheckpointError, type GgufEntry, type GgufFile, type GgufValue, type Shape } from "@lowrank/tensor";
import { shown } from "../../schema.js";

/** What a GGUF file says of its model, but for the tokenizer and the weights themselves. */
export interface GgufFacts {
  /** The file's name, for errors. */
  readonly name: string;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly entries: ReadonlyMap<string, GgufEntry>;
  /** Vectors that say something of the config, not weights: what frequencies are divided by. */
  readonly factors: ReadonlyMap<string, Float32Array>;
}

/** Tensors that the converter makes of a config. */
export const factorNames: readonly string[] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];
/** Of layers, heads and experts; the largest models published have some hundred. */
const mostLayers = 4096;
/** Half of a head's numbers at most. */
const mostFactors = 1 << 16;

/** Reads the facts of an opened file. Rejects with CheckpointError where factors of frequencies are no short f32 vector. */
export async function ggufFacts(file: GgufFile): Promise<GgufFacts> {
  const factors = new Map<string, Float32Array>();
  for (const name of factorNames) {
    const entry = file.entries.get(name);
    if (!entry) continue;
    if (entry.type.name !== "F32" || entry.bytes > 4 * mostFactors)
      throw new CheckpointError(
        `${file.name}: tensor "${name}" is ${entry.type.name} of ${entry.bytes} bytes, not a short vector of F32. Make the file again.`,
        file.name,
      );
    const bytes = await file.bytes(name);
    factors.set(name, new Float32Array(bytes.slice().buffer));
  }
  return { name: file.name, metadata: file.metadata, entries: file.entries, factors };
}

/** Values below an architecture's name, each found true to its type. What is asked for is noted, so that the rest can be told. */
export class GgufReader {
  readonly #asked = new Set<string>();

  constructor(
    readonly facts: GgufFacts,
    readonly architecture: string,
  ) {}

  /** Keys of the architecture that nobody asked for. */
  get unread(): readonly string[] {
    return [...this.facts.metadata.keys()].filter((key) => key.startsWith(`${this.architecture}.`) && !this.#asked.has(key));
  }

  has(key: string): boolean {
    return this.#value(key) !== undefined;
  }

  isList(key: string): boolean {
    return typeof this.#value(key) === "object";
  }

  /** A whole number of at least 0. */
  count(key: string): number;
  count<T>(key: string, fallback: T): number | T;
  count(key: string, ...fallback: readonly unknown[]): unknown {
    return this.#checked(key, "a whole number of at least 0", isCount, fallback);
  }

  /** A count of things each of which has a place in lists: experts, heads. */
  fewCount(key: string, ...fallback: readonly number[]): number {
    const value = this.#checked(key, "a whole number of at least 0", isCount, fallback) as number;
    if (value > mostLayers) throw this.wrong(key, value, `at most ${mostLayers}`);
    return value;
  }

  number(key: string): number;
  number<T>(key: string, fallback: T): number | T;
  number(key: string, ...fallback: readonly unknown[]): unknown {
    return this.#checked(key, "a finite number", Number.isFinite, fallback);
  }

  flag<T>(key: string, fallback: T): boolean | T {
    return this.#checked(key, "true or false", (value) => typeof value === "boolean", [fallback]) as boolean | T;
  }

  text<T>(key: string, fallback: T): string | T {
    return this.#checked(key, "a text", (value) => typeof value === "string", [fallback]) as string | T;
  }

  /** How many layers there are, without those that only foretell tokens. */
  layerCount(): number {
    const [all, foretelling] = [this.count("block_count"), this.count("nextn_predict_layers", 0)];
    if (all > 0 && all <= mostLayers && foretelling < all) return all - foretelling;
    throw this.wrong("block_count", all, `from 1 to ${mostLayers}, more than "nextn_predict_layers" ${foretelling}`);
  }

  /** A whole number, or one for each of `length` layers: always a list. */
  perLayer(key: string, length: number): readonly number[] {
    const value = this.#value(key);
    if (isCount(value)) return Array.from({ length }, () => value as number);
    const list = listOf(value);
    if (list && list.length >= length && list.every(isCount)) return (list as number[]).slice(0, length);
    throw this.wrong(key, value, `a whole number, or one for each of ${length} layers`);
  }

  /** Truth values, one for each of `length` layers; null where there are none. */
  truths(key: string, length: number): readonly boolean[] | null {
    const value = this.#value(key);
    if (value === undefined) return null;
    const list = listOf(value);
    if (list && list.length >= length && list.every((item) => typeof item === "boolean" || item === 0 || item === 1))
      return list.slice(0, length).map(Boolean);
    throw this.wrong(key, value, `a truth value for each of ${length} layers`);
  }

  /** Numbers; null where there are none. */
  numbers(key: string): readonly number[] | null {
    const value = this.#value(key);
    if (value === undefined) return null;
    const list = listOf(value);
    if (list?.every((item) => typeof item === "number" && !Number.isNaN(item))) return list as number[];
    throw this.wrong(key, value, "a list of numbers");
  }

  /** The shape of a tensor; null where there is none. */
  shape(name: string): Shape | null {
    return this.facts.entries.get(name)?.shape ?? null;
  }

  /** True where some layer has this tensor: "attn_q.bias". */
  someLayerHas(name: string): boolean {
    return [...this.facts.entries.keys()].some((entry) => /^blk\.\d+\./.test(entry) && entry.slice(entry.indexOf(".", 4) + 1) === name);
  }

  wrong(key: string, value: unknown, what: string): CheckpointError {
    const fact =
      value === undefined
        ? `the metadata has no "${this.#full(key)}"`
        : `the metadata's "${this.#full(key)}" is ${told(value)}, not ${what}`;
    return this.error(`${fact}.`, "Fetch the file again, or convert the model with a current llama.cpp.");
  }

  error(fact: string, remedy: string): CheckpointError {
    return new CheckpointError(`${this.facts.name}: ${fact} ${remedy}`, this.facts.name);
  }

  #full(key: string): string {
    return `${this.architecture}.${key}`;
  }

  #value(key: string): GgufValue | undefined {
    this.#asked.add(this.#full(key));
    return this.facts.metadata.get(this.#full(key));
  }

  #checked(key: string, what: string, fits: (value: unknown) => boolean, fallback: readonly unknown[]): unknown {
    const value = this.#value(key);
    if (value === undefined && fallback.length > 0) return fallback[0];
    if (fits(value)) return value;
    throw this.wrong(key, value, what);
  }
}

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;

/** A list of the metadata as an array of numbers and truth values; null for what is none. */
function listOf(value: GgufValue | undefined): readonly unknown[] | null {
  if (typeof value !== "object") return null;
  const list: readonly unknown[] = Array.isArray(value) ? value : Array.from(value as ArrayLike<unknown>);
  return list.map((item) => (typeof item === "bigint" ? Number(item) : item));
}

function told(value: unknown): string {
  const list = listOf(value as GgufValue);
  return list ? `a list of ${list.length}` : typeof value === "bigint" ? String(value) : shown(value);
}
