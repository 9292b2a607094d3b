import { readFile } from "node:fs/promises";
import { UsageError } from "../failure.js";

/** The JSON of a file that a flag names, in UTF-8, or in UTF-16 with a byte order mark. Rejects with UsageError where it is none. */
export async function jsonFile(flag: string, path: string, remedy: string): Promise<unknown> {
  const bytes = await readFile(path).catch((error: unknown) => {
    // Of a folder Node does not say which.
    throw error instanceof Error ? Object.assign(error, { path }) : error;
  });
  const encoding = bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : "utf-8";
  try {
    return JSON.parse(new TextDecoder(encoding, { fatal: true }).decode(bytes));
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
    throw new UsageError(`${flag} ${path} is not JSON: ${error.message}. ${remedy}`);
  }
}
