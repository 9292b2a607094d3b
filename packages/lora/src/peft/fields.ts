import * as z from "zod/mini";
import { AdapterError } from "../errors.js";

/** True for the values by which PEFT says that an option is not used. */
function isUnset(value: unknown): boolean {
  if (value === null || value === undefined || value === false) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

function show(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/**
 * The fields of an adapter_config.json, each of which must be taken by somebody: what is set and was not taken at the end is refused by
 * name, so that no option is ever ignored.
 */
export class PeftFields {
  readonly #left: Map<string, unknown>;

  constructor(
    json: Readonly<Record<string, unknown>>,
    /** What errors call the file. */
    readonly file: string,
  ) {
    this.#left = new Map(Object.entries(json));
  }

  /** A field's value without taking it. */
  peek(name: string): unknown {
    return this.#left.get(name);
  }

  /** Takes a field of a schema, which errors call `kind`; `otherwise` where it is absent or null. Throws AdapterError for another type. */
  take<T>(name: string, schema: z.ZodMiniType<T>, kind: string, otherwise: T): T {
    const value = this.#left.get(name);
    this.#left.delete(name);
    if (value === null || value === undefined) return otherwise;
    const { success, data } = z.safeParse(schema, value);
    if (!success)
      throw new AdapterError(
        `${this.file}: ${name} is ${show(value)}, which is not ${kind}. Correct it or save the adapter again with PEFT.`,
        [name],
      );
    return data;
  }

  takeNumber(name: string, otherwise: number): number {
    return this.take(name, z.number(), "a number", otherwise);
  }

  takeFlag(name: string, otherwise = false): boolean {
    return this.take(name, z.boolean(), "true or false", otherwise);
  }

  takeText(name: string): string | null {
    return this.take<string | null>(name, z.string(), "a string", null);
  }

  takeNumbers(name: string): Readonly<Record<string, number>> {
    return this.take<Readonly<Record<string, number>>>(name, z.record(z.string(), z.number()), "an object of numbers", {});
  }

  /** A string, a list of strings, or undefined where absent. */
  takeNames(name: string): readonly string[] | string | undefined {
    const schema = z.union([z.string(), z.array(z.string())]);
    return this.take<readonly string[] | string | undefined>(name, schema, "a string or a list of strings", undefined);
  }

  /** Takes fields whose value changes nothing here. */
  pass(...names: readonly string[]): void {
    for (const name of names) this.#left.delete(name);
  }

  /** Refuses whatever is set and was not taken. Throws AdapterError naming all of it. */
  refuseRest(): void {
    const rest = [...this.#left].filter(([, value]) => !isUnset(value));
    if (rest.length === 0) return;
    const shown = rest.map(([name, value]) => `${name}: ${show(value)}`).join(", ");
    throw new AdapterError(
      `${this.file}: these options are set and not supported: ${shown}. Train the adapter without them, or merge it in Python (merge_and_unload) and load the merged checkpoint.`,
      rest.map(([name]) => name),
    );
  }
}
