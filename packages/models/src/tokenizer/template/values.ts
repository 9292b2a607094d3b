/** A value of a template, with Python's types: None is null, int is a number or, beyond 2^53, a bigint, float is `Float`, str is a string. */
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly Value[]
  | Float
  | Undefined
  | Tuple
  | Dict
  | Range
  | Markup
  | View
  | Stream
  | Namespace
  | Callable;

/** What Python raises where a template does what its types do not allow. */
export class TemplateError extends Error {}

/** Pays for steps; throws RenderLimit where there are not as many left. */
export type Charge = (steps: number) => void;

/** Python's float, which keeps apart 1.0 and 1. */
export class Float {
  constructor(readonly value: number) {}
}

/** What has no value: prints nothing, counts as false, and fails where it is used. */
export class Undefined {
  constructor(readonly message: string) {}

  fail(): never {
    throw new TemplateError(this.message);
  }
}

export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

/** A text that counts as HTML: what is put together with it is escaped. */
export class Markup {
  constructor(readonly text: string) {}
}

/** A mapping in the order of its keys; 1, 1.0 and true are one key. */
export class Dict {
  readonly #entries = new Map<string, readonly [Value, Value]>();

  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    for (const [key, value] of entries) this.set(key, value);
  }

  set(key: Value, value: Value): void {
    const hash = hashOf(key);
    this.#entries.set(hash, [orElse(this.#entries.get(hash)?.[0], () => key), value]);
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(typeof key === "string" ? `s${key}` : hashOf(key))?.[1];
  }

  get size(): number {
    return this.#entries.size;
  }

  entries(): readonly (readonly [Value, Value])[] {
    return [...this.#entries.values()];
  }

  keys(): readonly Value[] {
    return this.entries().map(([key]) => key);
  }
}

/** Python's range: whole numbers that are not there until they are gone through. */
export class Range {
  readonly length: number;

  constructor(
    readonly start: number,
    readonly stop: number,
    readonly step: number,
  ) {
    this.length = Math.max(0, Math.ceil((stop - start) / step));
  }
}

/** `keys()`, `values()` or `items()` of a mapping. */
export class View {
  constructor(
    readonly kind: "keys" | "values" | "items",
    readonly dict: Dict,
  ) {}

  items(): readonly Value[] {
    const entries = this.dict.entries();
    if (this.kind === "items") return entries.map((entry) => new Tuple(entry));
    return entries.map(([key, value]) => (this.kind === "keys" ? key : value));
  }
}

/** A generator of Python's: it is gone through once, when it is asked for, and has no length. */
export class Stream {
  #isSpent = false;
  readonly #items: () => readonly Value[];

  constructor(items: () => readonly Value[]) {
    this.#items = items;
  }

  take(): readonly Value[] {
    if (this.#isSpent) return [];
    this.#isSpent = true;
    return this.#items();
  }
}

/** What `namespace()` makes: fields that a `set` within a loop may change. */
export class Namespace {
  constructor(readonly fields: Map<string, Value>) {}
}

/** Arguments of a call. */
export interface Given {
  readonly positional: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
}

/** A function, a method of a value, a macro, or the variable `loop`. */
export class Callable {
  constructor(
    readonly shown: string,
    readonly call: (given: Given) => Value,
    /** Attributes by name. */
    readonly attributes: ((name: string) => Value | undefined) | null = null,
  ) {}
}

/** An int of any size. */
export function wholeNumber(value: bigint): number | bigint {
  return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}

export function isInt(value: Value): value is number | bigint | boolean {
  return typeof value === "number" || typeof value === "bigint" || typeof value === "boolean";
}

/** A text, marked or not. */
export function isText(value: Value): value is string | Markup {
  return typeof value === "string" || value instanceof Markup;
}

export function textOf(value: string | Markup): string {
  return typeof value === "string" ? value : value.text;
}

/** The name that Python gives the type of a value. */
export function typeName(value: Value): string {
  if (value === null) return "NoneType";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number" || typeof value === "bigint") return "int";
  if (typeof value === "string") return "str";
  if (isList(value)) return "list";
  if (value instanceof View) return `dict_${value.kind}`;
  if (value instanceof Stream) return "generator";
  if (value instanceof Callable) return "function";
  return value instanceof Markup || value instanceof Undefined || value instanceof Namespace
    ? value.constructor.name
    : value.constructor.name.toLowerCase();
}

/** A text that equal keys of a mapping have in common. Throws TemplateError where Python has no hash. */
function hashOf(key: Value): string {
  if (typeof key === "string") return `s${key}`;
  if (key === null) return "n";
  if (typeof key === "boolean") return `i${Number(key)}`;
  if (typeof key === "number" || typeof key === "bigint") return `i${key}`;
  if (key instanceof Markup) return `s${key.text}`;
  if (key instanceof Float) return Number.isInteger(key.value) ? `i${BigInt(key.value)}` : `f${key.value}`;
  if (key instanceof Tuple)
    return `t${key.items
      .map((item) => hashOf(item))
      .map((hash) => `${hash.length}:${hash}`)
      .join("")}`;
  if (key instanceof Undefined) return "u";
  throw new TemplateError(`unhashable type: '${typeName(key)}'`);
}

/** A value, or another where there is none: None, which is JavaScript's null, is one. */
export function orElse<T extends Value>(value: T | undefined, otherwise: () => T): T {
  return value === undefined ? otherwise() : value;
}

/** A list, which is not a tuple. */
export function isList(value: Value): value is readonly Value[] {
  return Array.isArray(value);
}
