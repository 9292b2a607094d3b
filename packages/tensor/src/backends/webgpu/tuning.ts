import type { TunedClass, Tuning } from "../../graph/backend.js";
import type { Device } from "../../graph/device.js";
import type { Plan } from "../../kernels/kernel.js";
import { DeviceError } from "../../tensor/errors.js";

/** Where tunings are remembered from one device to the next, by adapter. */
export interface TuningStore {
  /** What was saved for an adapter, unchecked; null where nothing was. */
  load(adapter: string): Promise<{ readonly value: unknown; readonly source: string } | null>;
  save(tuning: Tuning): Promise<void>;
}

/**
 * Times every variant of the product kernels of some plans, one of each class, and lets the device use the fastest for plans that are made
 * from then on. Classes that the device has measured, or was opened with, are left out. Throws DeviceError on a device without variants.
 */
export async function tune(
  { backend, name }: Device,
  plans: readonly Plan[],
  onClass: (found: TunedClass) => void = () => {},
): Promise<Tuning> {
  if (!backend.tune)
    throw new DeviceError(`The device ${name} has no kernel variants to choose among. Tune a device that was opened as "webgpu".`, name);
  return backend.tune(plans, onClass);
}

/** Checks what a store or a file gave. Throws DeviceError, which says what to do, where it is no tuning. */
export function parseTuning(value: unknown, source: string): Tuning {
  const refuse = (what: string): never => {
    throw new DeviceError(`${source}: this is no tuning of kernel variants: ${what}. Delete it and tune again.`, "webgpu");
  };
  const isRecord = (given: unknown): given is Readonly<Record<string, unknown>> =>
    typeof given === "object" && given !== null && !Array.isArray(given);
  if (!isRecord(value)) return refuse("not an object");
  const { adapter, matmul } = value;
  if (typeof adapter !== "string") return refuse("adapter is not a text");
  if (!isRecord(matmul)) return refuse("matmul is not an object");
  for (const [name, variant] of Object.entries(matmul)) if (!isRecord(variant)) return refuse(`the variant of "${name}" is not an object`);
  return { adapter, matmul: matmul as unknown as Tuning["matmul"] };
}
