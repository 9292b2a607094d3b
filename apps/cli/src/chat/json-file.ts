import { readFile } from "node:fs/promises";
import { utf16Of } from "@lowrank/models";
import { UsageError } from "../failure.js";

/** The JSON of a file that a flag names, in UTF-8, or in UTF-16 with a byte order mark. Rejects with UsageError where it is none. */
export async function jsonFile(flag: string, path: string, remedy: string): Promise<unknown> {
  const bytes = await readFile(path).catch((error: unknown) => {
    // Of a folder Node does not say which.
    throw error instanceof Error ? Object.assign(error, { path }) : error;
  });
  try {
    return JSON.parse(new TextDecoder(utf16Of(bytes) ?? "utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
    throw new UsageError(`${flag} ${path} is not JSON: ${error.message}. ${remedy}`);
  }
}
