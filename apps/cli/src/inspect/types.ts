import { checkpointOutline, modelFiles } from "@lowrank/models";
import { absentGpu, planningDevice, type QuantizedType, type Tensor } from "@lowrank/tensor";
import { UsageError } from "../failure.js";
import { bytes, grouped } from "../terminal/format.js";

/** Tensors that are stored alike: a dtype, or the type of their blocks. */
export interface StoredAs {
  readonly type: string;
  readonly tensors: number;
  readonly parameters: number;
  readonly bytes: number;
}

/** Something with a type, so many parameters and so many bytes. */
interface Typed {
  readonly type: string;
  readonly parameters: number;
  readonly bytes: number;
}

/** How many tensors there are of each type, those with most parameters first. */
export function storedTypes(tensors: Iterable<Typed>): readonly StoredAs[] {
  const types = new Map<string, StoredAs>();
  for (const { type, parameters, bytes: size } of tensors) {
    const found = types.get(type) ?? { type, tensors: 0, parameters: 0, bytes: 0 };
    types.set(type, { type, tensors: found.tensors + 1, parameters: found.parameters + parameters, bytes: found.bytes + size });
  }
  return [...types.values()].sort((a, b) => b.parameters - a.parameters || (a.type < b.type ? -1 : 1));
}

/** The types of a model, as part of a sentence: "nf4 (14 tensors, 1.2 MB), bf16 (5 tensors, 60 kB)". */
export const typesLine = (types: readonly StoredAs[]): string =>
  types
    .map(({ type, tensors, bytes: size }) => `${type} (${grouped(tensors)} ${tensors === 1 ? "tensor" : "tensors"}, ${bytes(size)})`)
    .join(", ");

const typeOf = ({ packing, dtype, size, storage }: Tensor): Typed => ({
  type: packing?.type ?? dtype,
  parameters: size,
  bytes: packing?.bytes ?? storage?.bytes ?? 0,
});

/** What the parameters of a folder would be stored as if they were quantized while they are loaded, and what there is to say about it. */
export async function quantizedTypesOf(
  folder: string,
  quantize: QuantizedType,
): Promise<{ readonly types: readonly StoredAs[]; readonly warnings: readonly string[] }> {
  const { device } = planningDevice(absentGpu("nobody", Number.MAX_SAFE_INTEGER));
  const { model, warnings } = await checkpointOutline(folder, { device, files: modelFiles, quantize });
  const types = storedTypes([...model.namedParameters().values()].map(typeOf));
  if (types.length === 0) throw new UsageError(`${folder} holds no parameters. Give the folder of a model.`);
  return { types, warnings };
}
