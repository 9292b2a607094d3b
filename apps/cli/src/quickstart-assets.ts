import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
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

/** The first of several places beside this file that exists: the installed package's, else the repository's. */
function asset(what: string, ...places: readonly string[]): string {
  for (const place of places) {
    const path = fileURLToPath(new URL(place, import.meta.url));
    if (existsSync(path)) return path;
  }
  throw new UsageError(
    `The ${what} of the quickstart is missing from this installation. Install the package again, or run from a whole clone.`,
  );
}

/** The folder of the small pretrained model that ships with the command line. */
export function baseModelFolder(): string {
  return asset("base model", "../assets/base-model/", "../../../examples/base-model/model/").replace(/[\\/]$/, "");
}

/** Makes the example task's rows; the same for the same seed. */
export async function exampleOrders(options: {
  readonly trainCount: number;
  readonly heldOutCount: number;
  readonly seed: number;
}): Promise<Orders> {
  const path = asset("data generator", "../assets/orders.mjs", "../../../examples/orders/generate.mjs");
  const { generateOrders } = (await import(path)) as OrdersModule;
  return generateOrders(options);
}
