import type { DataSet, Examples } from "@lowrank/models";
import type { DataValues } from "../data/flags.js";
import { openData, readingOf } from "../data/open.js";
import type { Output } from "../output.js";
import { openModel, type QuantizeChoice, withDevice } from "../session.js";
import { splitRows } from "./held-out.js";

/** What says where each run of a comparison begins. */
export interface Beginning extends DataValues {
  readonly model: string;
  readonly revision: string | undefined;
  readonly quantize?: QuantizeChoice;
  readonly device: "auto" | "cpu" | "webgpu";
  readonly "eval-data": readonly string[] | undefined;
  readonly "eval-rows": number;
}

/** A model with its tokenizer, opened for one run. */
export type Opened = Awaited<ReturnType<typeof openModel>>;

/** A fresh device with the model on it: the same start for each run, and a peak of memory of its own. `use` is told what the device is. */
export function onFreshModel<R>(
  { model, revision, device, quantize = "none" }: Beginning,
  dtype: { readonly dtype?: "f32" },
  use: (loaded: Opened, description: string) => Promise<R>,
  told: { readonly output?: Output; readonly signal?: AbortSignal } = {},
): Promise<R> {
  return withDevice(device, null, async (dev) =>
    // Full fine-tuning trains the weights themselves.
    use(
      await openModel(model, dev, { ...dtype, revision, quantize: dtype.dtype ? "none" : quantize, ...told }),
      `${dev.name} (${dev.description})`,
    ),
  );
}

/** The rows to train on and those that are held out. `told`: who hears of them, the first time, and may stop the reading. */
export async function rowsOf(
  values: Beginning,
  loaded: Opened,
  told: { readonly output: Output; readonly signal: AbortSignal } | null,
): Promise<{ readonly data: DataSet<Examples>; readonly heldOut: DataSet<Examples> }> {
  const { data, "eval-data": held, "eval-rows": rowLimit } = values;
  const reading = readingOf(values);
  const output = told?.output ?? null;
  // Later, what is finished is shown first.
  const stop = told ? { signal: told.signal } : {};
  const heldOut = held === undefined ? null : await openData(held, loaded, output, { reading, rowLimit, ...stop });
  return splitRows(await openData(data, loaded, output, { reading, ...stop }), heldOut, rowLimit);
}
