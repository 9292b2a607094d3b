import type { Adapter, DataRun } from "@lowrank/lora";
import { BatchSequence, type CausalLM, type Examples } from "@lowrank/models";
import { tensor } from "@lowrank/tensor";
import type { Output } from "./output.js";

/** Positions that a row can take: the model's context without the virtual tokens of an adapter. */
export function contextOf(model: Pick<CausalLM, "contextLength" | "virtualTokens">): number {
  return model.contextLength - model.virtualTokens.length;
}

/** Batches whose forward a method may look at before training. */
const initialBatchCount = 16;

/** How the first batches are made: as the training makes them. */
interface FirstBatches {
  readonly batchSize: number;
  readonly seed: number;
  readonly lengthLimit: number;
}

/** The model's forward over the first training batches, for an initialization from data (EVA): loss tokens count, as in PEFT. */
function firstRuns(model: CausalLM, examples: Examples, settings: FirstBatches): DataRun[] {
  const { batchSize } = settings;
  const batches = new BatchSequence(examples, { ...settings, layout: "padded" });
  const count = Math.min(initialBatchCount, Math.ceil(examples.length / batchSize));
  return Array.from({ length: count }, (_, i) => {
    const { ids, labels, rowCount, length } = batches.batch(i);
    return {
      run: () => model.hidden(tensor(ids, { device: model.device, dtype: "i32", shape: [rowCount, length] })),
      mask: labels.map((label) => Number(label !== -100)),
    };
  });
}

/** Initializes an adapter, and says so where that takes a while. Rejects with AdapterError where the data say too little. */
export async function initializeAdapter(
  adapter: Adapter,
  model: CausalLM,
  examples: Examples,
  settings: FirstBatches,
  output: Pick<Output, "note" | "draw">,
): Promise<void> {
  const { init } = adapter.options as { readonly init?: unknown };
  const isLong = /^(pissa|olora|loftq|eva)/.test(String(init));
  if (isLong) output.note(`initialization (${String(init)}) from the ${init === "eva" ? "data" : "weights"} …`);
  await adapter.initialize({
    runs: firstRuns(model, examples, settings),
    onLayer: (name, done, count) => isLong && output.draw(`${done} of ${count}: ${name}`),
  });
  if (isLong) output.draw("");
}
