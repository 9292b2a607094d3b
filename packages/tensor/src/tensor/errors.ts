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

/** More memory was asked for than the budget of a device leaves. */
export class OutOfMemoryError extends DeviceError {
  constructor(
    /** What was asked for beside what is in use, and what helps: sentences without their ends. */
    readonly fact: string,
    readonly remedy: string,
    /** Bytes that would have to be given back first; not above 0 where there is room, but none in one piece. */
    readonly missingBytes: number,
    device: string,
  ) {
    super(`${fact}. ${remedy.charAt(0).toUpperCase()}${remedy.slice(1)}.`, device);
  }
}

/** A device that was lost while it was used, with everything on it; `fact` says so without the remedy, which depends on who uses it. */
export class DeviceLostError extends DeviceError {
  constructor(
    readonly fact: string,
    remedy: string,
    device: string,
  ) {
    super(`${fact} ${remedy}`, device);
  }
}

/** A gradient through a value whose expression is gone; `shape` is the value's. torch's errors on freed graphs and on changes in place. */
export class HistoryError extends Error {
  override readonly name = "HistoryError";
  constructor(
    message: string,
    readonly shape: readonly number[],
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

/** A number of bytes as errors print it: `1.5 MiB`. */
export function showBytes(bytes: number): string {
  return bytes < 2 ** 20
    ? `${(bytes / 2 ** 10).toFixed(1)} KiB`
    : bytes < 2 ** 30
      ? `${(bytes / 2 ** 20).toFixed(1)} MiB`
      : `${(bytes / 2 ** 30).toFixed(2)} GiB`;
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
