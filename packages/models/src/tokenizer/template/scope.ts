import type { Charge, Value } from "./values.js";

/** Variables by name, and the scope around them. */
export class Scope {
  readonly #variables = new Map<string, Value>();

  constructor(readonly parent: Scope | null) {}

  /** The value of a name here or around here, or undefined. */
  find(name: string, charge: Charge): Value | undefined {
    for (let scope: Scope | null = this; scope; scope = scope.parent) {
      const value = scope.#variables.get(name);
      if (value !== undefined) return value;
      charge(1);
    }
    return undefined;
  }

  set(name: string, value: Value): void {
    this.#variables.set(name, value);
  }
}

/** Text as it is written, in UTF-16 units. */
export class Output {
  readonly #parts: string[] = [];
  length = 0;

  write(text: string): void {
    if (text === "") return;
    this.#parts.push(text);
    this.length += text.length;
  }

  text(): string {
    return this.#parts.join("");
  }
}
