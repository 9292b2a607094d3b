import { readFile } from "node:fs/promises";
import { parseLossless, utf16Of } from "@lowrank/models";
import { UsageError } from "../failure.js";

/**
 * The JSON of a file that a flag names, in UTF-8 or UTF-16; `isExact` keeps numbers as they are written, as rows of data do, for what a template
 * writes. Rejects with UsageError where it is none.
 */
export async function jsonFile(
  flag: string,
  path: string,
  { remedy, isExact = false }: { readonly remedy: string; readonly isExact?: boolean },
): Promise<unknown> {
  const bytes = await readFile(path).catch((error: unknown) => {
    // Of a folder Node does not say which.
    throw error instanceof Error ? Object.assign(error, { path }) : error;
  });
  try {
    const text = new TextDecoder(utf16Of(bytes) ?? "utf-8", { fatal: true }).decode(bytes);
    return isExact ? parseLossless(text) : JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
    throw new UsageError(`${flag} ${path} is not JSON: ${error.message}. ${remedy}`);
  }
}
