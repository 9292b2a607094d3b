import {
  type BlockType,
  blockWriter,
  CheckpointError,
  type DenseType,
  type Device,
  type DType,
  denseTypes,
  denseValues,
  type GgufEntry,
  type GgufFile,
  sizeOf,
  type Tensor,
  tensor,
  unpacked,
} from "@lowrank/tensor";
import { linkBytes } from "../families/gguf/apply.js";
import { type GgufLink, toModel } from "../families/gguf/change.js";
import { DenseWriter } from "./dense-writer.js";
import { inModelOrder, keptAs, type LinkedTensor, mixedTypes, widenedTypes } from "./gguf-kept.js";

/** The parameters of a link, the digests of the tensors that they were read from, and the types that are not kept. */
export interface LoadedLink {
  readonly tensors: readonly LinkedTensor[];
  readonly digests: readonly string[];
  readonly widened: readonly string[];
  /** The types of a parameter's tensors that are not kept because they are several. */
  readonly mixed: readonly string[];
}

interface Options {
  readonly device: Device;
  readonly dtype: DType | "auto";
}

/** Reads the parameters of a link. Rejects with CheckpointError where a number is not finite. */
export async function loadLink(file: GgufFile, link: GgufLink, options: Options): Promise<LoadedLink> {
  const entries = link.tensors.map(({ name }) => file.entries.get(name) as GgufEntry); // checked to be there
  const { tensors, digests } = await loaded(file, link, entries, options.device);
  const asked: LinkedTensor[] = [];
  for (const each of tensors) asked.push({ ...each, tensor: await asAsked(each.tensor, options.dtype) });
  return { tensors: asked, digests, widened: widenedTypes(entries), mixed: mixedTypes(link, entries) };
}

interface Loaded {
  readonly tensors: readonly LinkedTensor[];
  readonly digests: readonly string[];
}

function loaded(file: GgufFile, link: GgufLink, entries: readonly GgufEntry[], device: Device): Promise<Loaded> {
  const kept = keptAs(link, entries);
  switch (kept.kind) {
    case "blocks":
      return inBlocks(file, link, kept.type, device);
    case "expression":
      return inFileOrder(file, link, kept.types, device);
    case "plain":
      return alone(file, link, kept.dtype, device);
    case "numbers":
      return viaNumbers(file, link, entries, { device, dtype: kept.dtype });
  }
}

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
async function streamed(file: GgufFile, link: GgufLink, writers: readonly Taker<Uint8Array>[]): Promise<readonly string[]> {
  const write = inTurn(writers);
  const cut = link.changes.every((change) => change.kind === "rows" && change.model <= change.file);
  if (cut) {
    const digests: string[] = [];
    for (const { name } of link.tensors) digests.push(await file.stream(name, write));
    return digests;
  }
  const entries = link.tensors.map(({ name }) => file.entries.get(name) as GgufEntry); // checked to be there
  const [first] = entries;
  const length = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  const room = spareRoom && spareRoom.byteLength >= length ? spareRoom : new Uint8Array(length);
  spareRoom = null;
  try {
    const digests: string[] = [];
    let at = 0;
    for (const { name } of entries)
      digests.push(
        await file.stream(name, (part) => {
          room.set(part, at);
          at += part.byteLength;
        }),
      );
    if (first) write(linkBytes(link, room.subarray(0, length), first.type));
    return digests;
  } finally {
    if (room.byteLength <= mostSpareBytes) spareRoom = room;
  }
}

/** Memory in which nothing is moved at the moment: new pages for each tensor cost more than reading it. */
let spareRoom: Uint8Array | null = null;
const mostSpareBytes = 2 ** 24;

/** Fills the parameters of a link; what was begun is given back where that fails. */
async function filled<W extends { finish(): Tensor; dispose(): void }>(
  writers: readonly W[],
  dtype: DType,
  fill: (writers: readonly W[]) => Promise<readonly string[]>,
): Promise<Loaded> {
  try {
    const digests = await fill(writers);
    return { tensors: writers.map((writer) => ({ tensor: writer.finish(), dtype })), digests };
  } catch (error) {
    for (const writer of writers) writer.dispose();
    throw error;
  }
}

/** Blocks that are moved as wholes. */
function inBlocks(file: GgufFile, link: GgufLink, type: BlockType, device: Device): Promise<Loaded> {
  const writers = link.parameters.map(({ shape }) => blockWriter(type, shape, device));
  return filled(writers, "bf16", () =>
    streamed(
      file,
      link,
      writers.map((writer) => ({
        size: writer.blockCount * type.blockBytes,
        write: (bytes, at) => writer.write(bytes, at / type.blockBytes),
      })),
    ),
  );
}

/** Tensors' blocks as the file has them, read by an expression that moves their numbers. */
async function inFileOrder(file: GgufFile, link: GgufLink, types: readonly (BlockType | DType)[], device: Device): Promise<Loaded> {
  const begun = link.tensors.map(({ shape }, i) => {
    const type = types[i] as BlockType | DType; // one for each tensor
    if (typeof type === "object") return { writer: blockWriter(type, shape, device), unit: type.blockBytes };
    return { writer: new DenseWriter(device, type, shape), unit: 1 };
  });
  const { tensors, digests } = await filled(
    begun.map(({ writer }) => writer),
    "bf16",
    async (writers) => {
      const read: string[] = [];
      for (const [i, { name }] of link.tensors.entries()) {
        let at = 0;
        read.push(
          await file.stream(name, (bytes) => {
            writers[i]?.write(bytes, at);
            at += bytes.byteLength / (begun[i]?.unit ?? 1);
          }),
        );
      }
      return read;
    },
  );
  const tensor = inModelOrder(
    tensors.map((each) => each.tensor),
    link,
  );
  return { tensors: [{ tensor, dtype: "bf16" }], digests };
}

/** Tensors whose numbers stand alone, of one type. */
function alone(file: GgufFile, link: GgufLink, dtype: DType, device: Device): Promise<Loaded> {
  const writers = link.parameters.map(({ shape }) => new DenseWriter(device, dtype, shape));
  return filled(writers, dtype, () =>
    streamed(
      file,
      link,
      writers.map((writer) => ({ size: writer.bytes, write: (bytes, at) => writer.write(bytes, at) })),
    ),
  );
}

/** By the numbers themselves: of types that are not kept, of several types in one parameter, and of changes of the numbers. */
function viaNumbers(
  file: GgufFile,
  link: GgufLink,
  entries: readonly GgufEntry[],
  { device, dtype }: { readonly device: Device; readonly dtype: DType },
): Promise<Loaded> {
  const made = link.parameters.map(({ shape }) => new DenseWriter(device, dtype, shape));
  return filled(made, dtype, async (writers) => {
    if (link.changes.length === 0 && entries.every(({ type }) => denseTypes.has(type.name))) {
      const digests: string[] = [];
      const write = inTurn<Float32Array>(
        writers.map((writer) => ({ size: writer.size, write: (values, at) => writer.numbers(values, at) })),
      );
      for (const { name, type } of entries)
        digests.push(await file.stream(name, (bytes) => write(numbersOf(file, name, type.name, bytes))));
      return digests;
    }
    const read = await numbersOfLink(file, link, entries, device);
    let at = 0;
    for (const writer of writers) {
      writer.numbers(read.values.subarray(at, at + writer.size), 0);
      at += writer.size;
    }
    return read.digests;
  });
}

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
