import * as z from "zod/mini";

/** A line of metrics.jsonl: whatever it is about, it says at which step. */
const lineSchema = z.looseObject({ step: z.int().check(z.minimum(0)) });

/** A line that says what has changed since the run was started, where it was resumed all the same. */
export interface ChangeNote {
  readonly step: number;
  readonly changed: readonly string[];
}

/** A valid line of a metrics.jsonl, with its text. */
export interface MetricsLine {
  readonly step: number;
  readonly text: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** The valid lines of a metrics.jsonl; damaged ones are left out. */
export function metricsLines(text: string): MetricsLine[] {
  return text.split("\n").flatMap((line) => {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      return [];
    }
    const { data } = z.safeParse(lineSchema, value);
    return data ? [{ step: data.step, text: line, fields: data }] : [];
  });
}
