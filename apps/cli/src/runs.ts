import { BatchSequence, type CausalLM, type Example, type RunState } from "@lowrank/models";
import { type Tensor, tensor } from "@lowrank/tensor";
import { UsageError } from "./failure.js";

/** Positions that a row can take: the model's context without the virtual tokens of an adapter. */
export function contextOf(model: Pick<CausalLM, "contextLength" | "virtualTokens">): number {
  return model.contextLength - model.virtualTokens.length;
}

/** Batches whose forward a method may look at before training. */
const initialBatchCount = 16;

/** The model's forward over the first training batches, for methods whose first values come from data (EVA). */
export function firstRuns(model: CausalLM, examples: readonly Example[], batchSize: number, seed: number): (() => Tensor)[] {
  const longest = Math.max(...examples.map(({ ids }) => ids.length));
  const batches = new BatchSequence(examples, { batchSize, seed, lengthLimit: Math.min(contextOf(model), Math.max(longest, 2)) });
  const count = Math.min(initialBatchCount, Math.ceil(examples.length / batchSize));
  return Array.from({ length: count }, (_, i) => () => {
    const { ids, rowCount, length } = batches.batch(i);
    return model.hidden(tensor(ids, { device: model.device, dtype: "i32", shape: [rowCount, length] }));
  });
}

/** Throws UsageError when a run in a folder was started with other settings than those of now. */
export function checkSettings(out: string, saved: RunState["settings"], now: RunState["settings"]): void {
  const differing = Object.keys({ ...saved, ...now }).filter(
    (name) => saved[name] !== now[name] && (saved[name] ?? null) !== (now[name] ?? null),
  );
  if (differing.length === 0) return;
  const list = differing.map((name) => `--${name} was ${saved[name] ?? "absent"} and is ${now[name] ?? "absent"}`).join(", ");
  throw new UsageError(`${out} holds a run with other settings: ${list}. Resume with the same flags, or give another --out.`);
}
