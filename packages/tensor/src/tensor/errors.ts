/** Shapes that do not fit an operation; `shapes` holds the shapes concerned. */
export class ShapeError extends Error {
  override readonly name = "ShapeError";
  constructor(
    message: string,
    readonly shapes: readonly (readonly number[])[] = [],
  ) {
    super(message);
  }
}

/** A device that cannot be had, was lost, or has no memory left. */
export class DeviceError extends Error {
  override readonly name = "DeviceError";
  constructor(
    message: string,
    readonly device: string,
  ) {
    super(message);
  }
}

/** A file that is not what it claims to be; `path` names it. */
export class CheckpointError extends Error {
  override readonly name = "CheckpointError";
  constructor(
    message: string,
    readonly path: string,
  ) {
    super(message);
  }
}

/** A tensor that is not written because an element is infinite or NaN; `tensor` names it, `at` says where, by axes. */
export class NotFiniteError extends CheckpointError {
  constructor(
    message: string,
    path: string,
    readonly tensor: string,
    readonly at: string,
  ) {
    super(message, path);
  }
}

/** A shape as errors print it: `[2, 3]`. */
export function showShape(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}

/** A value of any kind as errors print it, on a line: `"abc"`, `3`, `null`, `an Array`. */
export function showValue(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === "function" || (typeof value === "object" && value !== null)) {
    const name = value.constructor?.name || "object";
    return `${/^[AEIOU]/i.test(name) ? "an" : "a"} ${name}`;
  }
  return String(value);
}
