import { CheckpointError } from "@lowrank/tensor";
import * as z from "zod/mini";

/** What a field holds where it is wrong, cut. */
export function shown(value: unknown): string {
  let text: string;
  try {
    text = JSON.stringify(value) ?? String(value);
  } catch {
    // From JavaScript: in a circle, or of more levels than the stack has room for.
    text = "a value that is no JSON";
  }
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** Says that a field is missing, or what it is and what it should be. */
const expected =
  (what: string) =>
  ({ input }: { readonly input?: unknown }): string =>
    input === undefined ? `is missing (${what})` : `is ${shown(input)}, not ${what}`;

/** A field that fits a test; `what` is how errors call it. Null counts as absent, as in transformers; then it is `fallback`, where there is one. */
export function field<T>(what: string, fits: (value: unknown) => boolean, fallback?: T): z.ZodMiniType<T, unknown> {
  return z.pipe(
    z.transform((value: unknown): unknown => value ?? fallback),
    z.custom<T, unknown>(fits, { error: expected(what) }),
  );
}

/** Whether a value is a positive integer. */
export const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) > 0;

/** A positive integer. */
export const count = (fallback?: number): z.ZodMiniType<number, unknown> => field("a positive integer", isCount, fallback);

/** A positive integer, or null; `fallback` where the file does not say. */
export const countOrNull = (fallback: number | null = null): z.ZodMiniType<number | null, unknown> =>
  z.pipe(
    z.transform((value: unknown): unknown => (value === undefined ? fallback : value)),
    field<number | null>("a positive integer", (value) => value === null || isCount(value), null),
  );

/** A whole number of at least 0. */
export const countOrZero = (fallback?: number): z.ZodMiniType<number, unknown> =>
  field("a whole number of at least 0", (value) => Number.isSafeInteger(value) && (value as number) >= 0, fallback);

const floats = new WeakSet<z.ZodMiniType<unknown, unknown>>();

/** True for a field that holds a float in Python. */
export function isFloatField(check: z.ZodMiniType<unknown, unknown>): boolean {
  return floats.has(check);
}

/** Marks a field that holds floats. */
export function asFloat<T>(check: z.ZodMiniType<T, unknown>): z.ZodMiniType<T, unknown> {
  floats.add(check);
  return check;
}

/** A finite number above 0. */
export const positive = (fallback?: number): z.ZodMiniType<number, unknown> =>
  asFloat(field("a number above 0", (value) => Number.isFinite(value) && (value as number) > 0, fallback));

export const flag = (fallback?: boolean): z.ZodMiniType<boolean, unknown> =>
  field("true or false", (value) => typeof value === "boolean", fallback);

/** One of some names. */
export const choice = <T extends string>(options: readonly T[], fallback?: T): z.ZodMiniType<T, unknown> =>
  field(`one of ${options.join(", ")}`, (value) => options.includes(value as T), fallback);

/** A token's number, a list of them, or null. Numbers below 0 stand for none in some files. */
export const tokenIds = (): z.ZodMiniType<number | readonly number[] | null, unknown> =>
  field<number | readonly number[] | null>(
    "a whole number, a list of them or null",
    (value) => value === null || (Array.isArray(value) ? value : [value]).every(Number.isSafeInteger),
    null,
  );

/** A value that a schema takes, or CheckpointError with everything that is wrong with it. `path` is the file's, `fields` the place in it. */
export function checked<T>(schema: z.ZodMiniType<T, unknown>, value: unknown, path: string, fields = ""): T {
  const result = z.safeParse(schema, value);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => {
    const place = [...(fields === "" ? [] : [fields]), ...issue.path.map(String)].join(".");
    return place === "" || (issue.code === "custom" && issue.params?.["isWhole"] === true)
      ? issue.message
      : `"${shorten(place)}" ${issue.message}`;
  });
  const list = problems.length <= 8 ? problems.join("; ") : `${problems.slice(0, 8).join("; ")}; and ${problems.length - 8} more`;
  throw new CheckpointError(`${path}: ${list}. Correct the file or fetch it again.`, path);
}

/** A rule over several fields; `problem` gives a sentence's part where it is broken, else null. */
export function rule<T>(problem: (value: T) => string | null): z.core.$ZodCheck<T> {
  return z.check<T>((context) => {
    const message = problem(context.value);
    if (message !== null) context.issues.push({ code: "custom", input: context.value, message, path: [], params: { isWhole: true } });
  });
}

function shorten(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
