import { existsSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { UsageError } from "./failure.js";

/** A row of the example task. */
export interface OrderRow {
  readonly prompt: string;
  readonly completion: string;
}

/** The three sets of the example task: orders in free words, and the record that each becomes. */
export interface Orders {
  readonly train: readonly OrderRow[];
  /** Combinations of people, items and cities that no training row has. */
  readonly heldOut: readonly OrderRow[];
  /** Names that no training row has. */
  readonly unseenNames: readonly OrderRow[];
}

interface OrdersModule {
  generateOrders(options: { readonly trainCount: number; readonly heldOutCount: number; readonly seed: number }): Orders;
}

/** A file or folder that ships with the command line: beside the installed package, or in the repository's examples. */
function asset(what: string, path: string): string {
  for (const place of ["../assets/", "../../../examples/"]) {
    const found = fileURLToPath(new URL(place + path, import.meta.url));
    if (existsSync(found)) return found;
  }
  throw new UsageError(`The ${what} is missing from this installation. Install the package again, or run from a whole clone.`);
}

/** The folder of the small pretrained model that ships with the command line. */
export function baseModelFolder(): string {
  return asset("base model", "base-model/model");
}

/** Passages of public-domain prose that ship with the command line, one `{"text"}` a line; the base model was not trained on them. */
export function generalTextFile(): string {
  return asset("general text", "general-text.jsonl");
}

/** Makes the example task's rows; the same for the same seed. */
export async function exampleOrders(options: {
  readonly trainCount: number;
  readonly heldOutCount: number;
  readonly seed: number;
}): Promise<Orders> {
  const path = asset("data generator", "orders/generate.mjs");
  const { generateOrders } = (await import(pathToFileURL(path).href)) as OrdersModule;
  return generateOrders(options);
}
