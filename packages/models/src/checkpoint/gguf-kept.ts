import {
  type BlockType,
  blockOutline,
  blockTypes,
  type Device,
  type DType,
  denseTypes,
  fromStorage,
  type GgufEntry,
  type GgufFile,
  packedTensor,
  type Shape,
  Storage,
  sizeOf,
  type Tensor,
} from "@lowrank/tensor";
import { linkValues, movesWholeBlocks } from "../families/gguf/apply.js";
import type { GgufLink } from "../families/gguf/change.js";

/** Types whose numbers stand alone, and the dtypes that they have here. */
const plainTypes: ReadonlyMap<string, DType> = new Map([
  ["F32", "f32"],
  ["F16", "f16"],
  ["BF16", "bf16"],
]);

/** Whether weights of a type cannot be read. */
export function refusedTypes(type: string): boolean {
  return !plainTypes.has(type) && !blockTypes.has(type) && !denseTypes.has(type);
}

/** A parameter, and the dtype that it has in the file; what is in blocks there counts as bf16. */
export interface LinkedTensor {
  readonly tensor: Tensor;
  readonly dtype: DType;
}

/**
 * How the parameters of a link are kept:
 * - `blocks`: in the file's blocks, each in its own, moved as wholes;
 * - `expression`: one parameter in the blocks of one tensor, or of two of several types or beside plain numbers, as they lie in the file, read by an expression that moves their numbers;
 * - `plain`: numbers of the file's dtype, whose bytes are moved;
 * - `numbers`: what is computed of the file's.
 */
export type Kept =
  | { readonly kind: "blocks"; readonly type: BlockType }
  | { readonly kind: "expression"; readonly types: readonly (BlockType | DType)[] }
  | { readonly kind: "plain" | "numbers"; readonly dtype: DType };

/** Tensors in blocks that one expression reads: gates and ups of experts, each of which has memories of its own for a kernel to bind. */
const mostTensors = 2;

/** How the parameters of a link are kept whose tensors are these. */
export function keptAs(link: GgufLink, entries: readonly GgufEntry[]): Kept {
  const [entry] = entries as readonly [GgufEntry, ...GgufEntry[]]; // a link has one at least
  const numbers: Kept = { kind: "numbers", dtype: computedDType(link, entries) };
  const types = entries.flatMap(({ type }) => blockTypes.get(type.name) ?? plainTypes.get(type.name) ?? []);
  const hasBlocks = types.some((type) => typeof type === "object");
  const isExpression = hasBlocks && link.parameters.length === 1 && types.length === entries.length && types.length <= mostTensors;
  const expression: Kept = isExpression ? { kind: "expression", types } : numbers;
  if (entries.some(({ type }) => type.name !== entry.type.name)) return expression;
  const moves = movesWholeBlocks(link, entry.type);
  const type = blockTypes.get(entry.type.name);
  if (type) {
    const areWhole = link.parameters.every(({ shape }) => (shape.at(-1) ?? 0) % type.blockSize === 0);
    if (areWhole && moves) return { kind: "blocks", type };
    return expression;
  }
  const dtype = plainTypes.get(entry.type.name);
  return dtype && moves ? { kind: "plain", dtype } : numbers;
}

/** The dtype of parameters that are computed of a file's numbers: what stands alone there is not rounded again. */
function computedDType({ changes }: GgufLink, entries: readonly GgufEntry[]): DType {
  if (entries.some(({ type }) => !plainTypes.has(type.name))) return "bf16";
  const dtypes = new Set(entries.map(({ type }) => plainTypes.get(type.name)));
  const isMoved = changes.every(({ kind }) => kind === "axes" || kind === "units" || kind === "rows");
  const [first = "f32"] = dtypes;
  return dtypes.size === 1 && isMoved ? first : "f32";
}

/** The types among some tensors' that are not kept. */
export const widenedTypes = (entries: readonly GgufEntry[]): readonly string[] => [
  ...new Set(entries.map(({ type }) => type.name).filter((name) => denseTypes.has(name))),
];

/** The types of tensors in blocks that are not kept in them, because one parameter has too many tensors of several types. */
export function mixedTypes(link: GgufLink, entries: readonly GgufEntry[]): readonly string[] {
  const types = [...new Set(entries.map(({ type }) => type.name))];
  return keptAs(link, entries).kind === "numbers" && types.length > 1 && types.some((type) => blockTypes.has(type)) ? types : [];
}

/** A link's one parameter as an expression over its tensors' blocks. */
export function inModelOrder(held: readonly Tensor[], link: GgufLink): Tensor {
  const parts = held.flatMap((tensor, i) =>
    Object.entries(tensor.packing?.parts ?? { values: tensor }).map(([name, part]) => [`${i}.${name}`, part] as const),
  );
  const types = [...new Set(held.map(({ packing, dtype }) => packing?.type ?? dtype))].join(" and ");
  return packedTensor(types, Object.fromEntries(parts), () => linkValues(link, held).reshape(link.parameters[0]?.shape ?? []));
}

/** The parameters of a link without memory or values yet, for planning. */
export function linkOutline(
  file: GgufFile,
  link: GgufLink,
  { device, dtype: asked }: { readonly device: Device; readonly dtype: DType | "auto" },
): readonly LinkedTensor[] {
  const entries = link.tensors.map(({ name }) => file.entries.get(name) as GgufEntry); // checked to be there
  const kept = keptAs(link, entries);
  const dense = (shape: Shape, dtype: DType): Tensor => fromStorage(new Storage(device, dtype, sizeOf(shape)), shape);
  const dtype = "dtype" in kept ? kept.dtype : "bf16";
  return link.parameters.map(({ shape }) => {
    if (asked !== "auto") return { tensor: dense(shape, asked), dtype };
    if ("dtype" in kept) return { tensor: dense(shape, kept.dtype), dtype };
    if (kept.kind === "blocks") return { tensor: blockOutline(kept.type, shape, device), dtype };
    const held = kept.types.map((type, i) => {
      const own = entries[i]?.shape ?? shape;
      return typeof type === "object" ? blockOutline(type, own, device) : dense(own, type);
    });
    return { tensor: inModelOrder(held, link), dtype };
  });
}
