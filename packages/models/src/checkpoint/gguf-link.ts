import {
  type BlockWriter,
  blockTypes,
  blockWriter,
  CheckpointError,
  type DenseType,
  type Device,
  type DType,
  denseTypes,
  denseValues,
  type GgufEntry,
  type GgufFile,
  packedTensor,
  sizeOf,
  type Tensor,
  tensor,
  unpacked,
} from "@lowrank/tensor";
import { linkBytes, linkValues } from "../families/gguf/apply.js";
import { type GgufLink, toModel } from "../families/gguf/change.js";
import { DenseWriter } from "./dense-writer.js";

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

/** The parameters of a link, the digests of the tensors that they were read from, and the types that are not kept. */
export interface LoadedLink {
  readonly tensors: readonly LinkedTensor[];
  readonly digests: readonly string[];
  readonly widened: readonly string[];
}

interface Options {
  readonly device: Device;
  readonly dtype: DType | "auto";
}

/** Reads the parameters of a link. Rejects with CheckpointError where a number is not finite. */
export async function loadLink(file: GgufFile, link: GgufLink, options: Options): Promise<LoadedLink> {
  const entries = link.tensors.map(({ name }) => file.entries.get(name) as GgufEntry); // checked to be there
  const types = [...new Set(entries.map(({ type }) => type.name))];
  const [type = ""] = types;
  const way = types.length > 1 ? viaNumbers : blockTypes.has(type) ? inBlocks : plainTypes.has(type) ? alone : viaNumbers;
  const { tensors, digests } = await way(file, link, entries, options.device);
  const loaded: LinkedTensor[] = [];
  for (const each of tensors) loaded.push({ ...each, tensor: await asAsked(each.tensor, options.dtype) });
  return { tensors: loaded, digests, widened: types.filter((name) => denseTypes.has(name)) };
}

interface Loaded {
  readonly tensors: readonly LinkedTensor[];
  readonly digests: readonly string[];
}

type Way = (file: GgufFile, link: GgufLink, entries: readonly GgufEntry[], device: Device) => Promise<Loaded>;

/** What takes some bytes or numbers in order, so many of them. */
interface Taker<Part> {
  readonly size: number;
  write(part: Part, at: number): void;
}

/** Hands the parts of a stream to takers one after another, to each as much as it takes. */
function inTurn<Part extends Uint8Array | Float32Array>(takers: readonly Taker<Part>[]): (part: Part) => void {
  let [index, at] = [0, 0];
  return (part) => {
    for (let from = 0; from < part.length && index < takers.length; ) {
      const taker = takers[index] as Taker<Part>; // index is below the count
      const count = Math.min(taker.size - at, part.length - from);
      taker.write(part.subarray(from, from + count) as Part, at);
      from += count;
      at += count;
      if (at === taker.size) [index, at] = [index + 1, 0];
    }
  };
}

/** Streams the bytes of a link's tensors, moved where they have to be, into writers of its parameters, one after another. */
async function streamed(
  file: GgufFile,
  link: GgufLink,
  [entry]: readonly [GgufEntry, ...GgufEntry[]],
  writers: readonly Taker<Uint8Array>[],
): Promise<readonly string[] | null> {
  const write = inTurn(writers);
  const cut = link.changes.every((change) => change.kind === "rows" && change.model <= change.file);
  if (cut) {
    const digests: string[] = [];
    for (const { name } of link.tensors) digests.push(await file.stream(name, write));
    return digests;
  }
  const { parts, digests } = await whole(file, link);
  const moved = linkBytes(link, parts, entry.type);
  if (!moved) return null;
  write(moved);
  return digests;
}

/** All bytes of a link's tensors. */
async function whole(
  file: GgufFile,
  link: GgufLink,
): Promise<{ readonly parts: readonly Uint8Array[]; readonly digests: readonly string[] }> {
  const parts: Uint8Array[] = [];
  const digests: string[] = [];
  for (const { name } of link.tensors) {
    const bytes = new Uint8Array(file.entries.get(name)?.bytes ?? 0);
    let at = 0;
    digests.push(
      await file.stream(name, (part) => {
        bytes.set(part, at);
        at += part.byteLength;
      }),
    );
    parts.push(bytes);
  }
  return { parts, digests };
}

/** Tensors of one type of blocks: they stay so, moved as whole blocks, or read by an expression that moves their numbers. */
const inBlocks: Way = async (file, link, entries, device) => {
  const [entry] = entries as readonly [GgufEntry, ...GgufEntry[]];
  const type = blockTypes.get(entry.type.name);
  const isWhole = type && link.parameters.every(({ shape }) => (shape.at(-1) ?? 0) % type.blockSize === 0);
  if (!type) return viaNumbers(file, link, entries, device);
  if (isWhole) {
    const writers = link.parameters.map(({ shape }) => blockWriter(type, shape, device));
    try {
      const digests = await streamed(
        file,
        link,
        [entry],
        writers.map((writer) => ({
          size: writer.blockCount * type.blockBytes,
          write: (bytes, at) => writer.write(bytes, at / type.blockBytes),
        })),
      );
      if (digests) return { tensors: writers.map((writer) => ({ tensor: writer.finish(), dtype: "bf16" })), digests };
    } catch (error) {
      for (const writer of writers) writer.dispose();
      throw error;
    }
    for (const writer of writers) writer.dispose();
  }
  const [parameter] = link.parameters;
  if (!parameter || link.parameters.length > 1 || entries.length > 1) return viaNumbers(file, link, entries, device);
  const writer: BlockWriter = blockWriter(type, entry.shape, device);
  try {
    let at = 0;
    const digest = await file.stream(entry.name, (bytes) => {
      writer.write(bytes, at);
      at += bytes.byteLength / type.blockBytes;
    });
    const held = writer.finish();
    const parts = held.packing?.parts ?? {};
    const moved = packedTensor(type.name, parts, () => linkValues(link, [held]).reshape(parameter.shape));
    return { tensors: [{ tensor: moved, dtype: "bf16" }], digests: [digest] };
  } catch (error) {
    writer.dispose();
    throw error;
  }
};

/** Tensors whose numbers stand alone, of one type. */
const alone: Way = async (file, link, entries, device) => {
  const [entry] = entries as readonly [GgufEntry, ...GgufEntry[]];
  const dtype = plainTypes.get(entry.type.name) ?? "f32";
  if (link.changes.some(({ kind }) => !["axes", "units", "rows"].includes(kind))) return viaNumbers(file, link, entries, device);
  const writers = link.parameters.map(({ shape }) => new DenseWriter(device, dtype, shape));
  try {
    const digests = await streamed(
      file,
      link,
      [entry],
      writers.map((writer) => ({ size: writer.bytes, write: (bytes, at) => writer.write(bytes, at) })),
    );
    if (digests) return { tensors: writers.map((writer) => ({ tensor: writer.finish(), dtype })), digests };
  } catch (error) {
    for (const writer of writers) writer.dispose();
    throw error;
  }
  for (const writer of writers) writer.dispose();
  return viaNumbers(file, link, entries, device);
};

/** By the numbers themselves: of types that are not kept, of several types in one parameter, and of changes of the numbers. */
const viaNumbers: Way = async (file, link, entries, device) => {
  const kept = new Set(entries.map(({ type }) => plainTypes.get(type.name) ?? "bf16"));
  const isMoved = link.changes.every(({ kind }) => kind === "axes" || kind === "units" || kind === "rows");
  const [first = "bf16"] = kept;
  // What is computed of numbers that stand alone is not rounded again.
  const dtype: DType = entries.some(({ type }) => !plainTypes.has(type.name)) ? "bf16" : kept.size === 1 && isMoved ? first : "f32";
  const writers = link.parameters.map(({ shape }) => new DenseWriter(device, dtype, shape));
  try {
    const digests: string[] = [];
    if (link.changes.length === 0 && entries.every(({ type }) => denseTypes.has(type.name))) {
      const write = inTurn<Float32Array>(
        writers.map((writer) => ({ size: writer.size, write: (values, at) => writer.numbers(values, at) })),
      );
      for (const { name, type } of entries)
        digests.push(await file.stream(name, (bytes) => write(numbersOf(file, name, type.name, bytes))));
    } else {
      const read = await numbersOfLink(file, link, entries, device);
      for (const digest of read.digests) digests.push(digest);
      let at = 0;
      for (const writer of writers) {
        writer.numbers(read.values.subarray(at, at + writer.size), 0);
        at += writer.size;
      }
    }
    return { tensors: writers.map((writer) => ({ tensor: writer.finish(), dtype })), digests };
  } catch (error) {
    for (const writer of writers) writer.dispose();
    throw error;
  }
};

async function numbersOfLink(
  file: GgufFile,
  link: GgufLink,
  entries: readonly GgufEntry[],
  device: Device,
): Promise<{ readonly values: Float32Array; readonly digests: readonly string[] }> {
  const digests: string[] = [];
  const all = new Float32Array(entries.reduce((sum, { shape }) => sum + sizeOf(shape), 0));
  let at = 0;
  for (const { name, type, shape } of entries) {
    if (denseTypes.has(type.name))
      digests.push(
        await file.stream(name, (bytes) => {
          const values = numbersOf(file, name, type.name, bytes);
          all.set(values, at);
          at += values.length;
        }),
      );
    else {
      digests.push(await file.stream(name, () => undefined));
      const held = await file.weight(name, { device });
      all.set((await held.data()) as Float32Array, at);
      held.dispose();
      at += sizeOf(shape);
    }
  }
  return { values: toModel(link, all), digests };
}

/** The numbers of some blocks. Throws CheckpointError where one is not finite. */
function numbersOf(file: GgufFile, name: string, typeName: string, bytes: Uint8Array): Float32Array {
  const type = denseTypes.get(typeName) as DenseType; // whoever calls has looked
  const values = denseValues(type, bytes);
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += 0 * (values[i] as number); // i is below the length
  if (sum === 0) return values;
  throw new CheckpointError(
    `${file.name}: tensor "${name}" has a scale of ${typeName} that is not finite, and nothing can be computed with that. Fetch the file again.`,
    file.name,
  );
}

/** A parameter in the dtype that was asked for; blocks are left one parameter after the other. */
async function asAsked(held: Tensor, dtype: DType | "auto"): Promise<Tensor> {
  if (dtype === "auto" || (!held.packing && held.dtype === dtype)) return held;
  const dense = held.packing ? await unpacked(held, dtype) : tensor(await held.data(), { dtype, shape: held.shape, device: held.device });
  held.dispose();
  return dense;
}
