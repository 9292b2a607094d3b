import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { UsageError } from "../failure.js";
import type { Answer } from "./answers.js";

/** A measure of a person's own: the mean over rows of what a module's default export gives for each. */
export interface OwnMetric {
  readonly name: string;
  /** Rejects with UsageError where the function fails or gives no number. */
  mean(answers: readonly Answer[]): Promise<number>;
}

/** Loads the module of --metric. Rejects with UsageError where it cannot be loaded, or has no function as its default export. */
export async function ownMetric(path: string): Promise<OwnMetric> {
  const fail = (fact: string): never => {
    throw new UsageError(
      `--metric ${path}: ${fact}. Write a module with: export default ({ prompt, expected, answer }) => a number for each row.`,
    );
  };
  const loaded = (await import(pathToFileURL(resolve(path)).href).catch((error: unknown) =>
    fail(`it cannot be loaded (${error instanceof Error ? error.message : String(error)})`),
  )) as { readonly default?: unknown };
  const score = loaded.default;
  if (typeof score !== "function") return fail("it has no function as its default export");
  return {
    name: basename(path).replace(/\.\w+$/, ""),
    async mean(answers) {
      let sum = 0;
      for (const answer of answers) {
        let value: unknown;
        try {
          value = await score(answer);
        } catch (error) {
          fail(`it fails on line ${answer.line} (${error instanceof Error ? error.message : String(error)})`);
        }
        if (typeof value !== "number" || Number.isNaN(value)) fail(`it gives ${String(value)} for line ${answer.line}, not a number`);
        sum += Number(value);
      }
      return sum / Math.max(1, answers.length);
    },
  };
}
