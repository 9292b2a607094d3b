import { CheckpointError, type GgufValue } from "@lowrank/tensor";
import { shown } from "../../schema.js";

/** Metadata of a GGUF file by key. */
export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** What tokens are, by their numbers in `tokenizer.ggml.token_type`. llama.h: llama_token_type. */
export const tokenTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** Reads fields of a GGUF file's metadata; what is of another kind than it should be is a CheckpointError that names the key. */
export class MetadataReader {
  constructor(
    readonly metadata: GgufMetadata,
    readonly path: string,
  ) {}

  text(key: string): string | null {
    return this.#of(key, "a text", (value) => (typeof value === "string" ? value : undefined));
  }

  flag(key: string): boolean | null {
    return this.#of(key, "true or false", (value) => (typeof value === "boolean" ? value : undefined));
  }

  texts(key: string): readonly string[] | null {
    return this.#of(key, "a list of texts", (value) =>
      Array.isArray(value) && value.every((item) => typeof item === "string") ? (value as readonly string[]) : undefined,
    );
  }

  /** Numbers of any type that holds them exactly. */
  numbers(key: string): ArrayLike<number> | null {
    return this.#of(key, "a list of numbers", (value) =>
      ArrayBuffer.isView(value) && !(value instanceof BigInt64Array) && !(value instanceof BigUint64Array)
        ? (value as unknown as ArrayLike<number>)
        : undefined,
    );
  }

  /** A token's number; null also for one that no token has, as files have it where there is none. */
  token(key: string, count: number): number | null {
    const id = this.#of(key, "a token's number", (value) => (typeof value === "number" && Number.isInteger(value) ? value : undefined));
    return id !== null && id >= 0 && id < count ? id : null;
  }

  wrong(fact: string, remedy: string): CheckpointError {
    return new CheckpointError(`${this.path}: ${fact}. ${remedy}.`, this.path);
  }

  #of<T>(key: string, what: string, read: (value: GgufValue) => T | undefined): T | null {
    const value = this.metadata.get(key);
    if (value === undefined) return null;
    const found = read(value);
    if (found === undefined)
      throw this.wrong(
        `the metadata "${key}" is ${typeof value === "object" ? "a list" : shown(typeof value === "bigint" ? String(value) : value)}, not ${what}`,
        "Convert the model again",
      );
    return found;
  }
}
