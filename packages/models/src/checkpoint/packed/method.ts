import { CheckpointError } from "@lowrank/tensor";
import type { Place, StoredWeight } from "../stored/stored.js";

/** The weight that a tensor is a part of, by the name that it would have unpacked, and which part. */
export interface PartName {
  readonly weight: string;
  readonly part: string;
}

/** The tensors by which a weight is stored, by the parts that they are; "" is the one of the weight's own name. */
export type Parts = ReadonlyMap<string, Place>;

/**
 * How a tool stores quantised weights. A new one is a file here, beside its relatives, and a line in `table.ts`: what its tensors are called, and the
 * weight that some of them are.
 */
export interface PackingMethod {
  /** What a name says; null where it is a weight's own. */
  split(name: string): PartName | null;
  /**
   * The weight of some parts, of which one at least has not the weight's own name; null where they are none, and each stands for itself. Rejects with
   * CheckpointError where they are damaged, or of a kind that is not read. `module`: the weight's name in the files, without its last part.
   */
  pack(parts: Parts, module: string): Promise<StoredWeight | null>;
  /** Whether a tensor of that name, which the model does not ask for, is of no use beside packed weights. */
  isSpare?(place: Place, packed: ReadonlySet<string>): Promise<boolean>;
}

/** Makes a method of what config.json says of it. Throws CheckpointError for what is not read. */
export type DefineMethod = (config: Readonly<Record<string, unknown>>, path: string) => PackingMethod;

/** The part of a weight that has to be there. Throws CheckpointError where it is not. */
export function partOf(parts: Parts, part: string, weight: string): Place {
  const found = parts.get(part);
  if (found) return found;
  const [other] = parts.values();
  throw new CheckpointError(
    `${other?.file.name}: "${weight}" is packed, and its "${part}" is missing; there are ${[...parts.values()].map(({ name }) => name).join(", ")}. Fetch all files of the checkpoint.`,
    weight,
  );
}

/** An error about a tensor of a checkpoint. */
export function damaged({ file, name }: Place, fact: string): CheckpointError {
  return new CheckpointError(`${file.name}: tensor "${name}" ${fact}. Fetch the checkpoint again.`, file.name);
}
