import { blockTensor } from "../blocks/block-tensor.js";
import { blockTypes } from "../blocks/table.js";
import { fromBytes } from "../graph/create.js";
import type { Device } from "../graph/device.js";
import type { Tensor } from "../graph/tensor.js";
import { CheckpointError } from "../tensor/errors.js";
import { type GgufEntry, type GgufValue, readGgufHeader } from "./gguf-header.js";
import type { ByteSource } from "./source.js";

/** A tensor of a file on a device, in the type that it is stored in. */
export interface GgufWeight {
  readonly shape: readonly number[];
  /** Bytes that it takes on the device. */
  readonly bytes: number;
  /** Its numbers: the tensor itself, or of blocks an f32 expression over them. */
  values(): Tensor;
  dispose(): void;
}

/** Types whose numbers stand alone, and the dtypes that they have here. */
const plain = { F32: "f32", F16: "f16", BF16: "bf16", I32: "i32" } as const;

/** An opened model of one GGUF file or several, whose headers were found sound. Nothing of its tensors is read yet. */
export interface GgufFile {
  readonly name: string;
  /** The first file's. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** By name, in the order of the files and of their bytes. */
  readonly entries: ReadonlyMap<string, GgufEntry>;
  /** A tensor's bytes as they are stored. Rejects with CheckpointError where there is none of that name, or the file has become shorter. */
  bytes(name: string): Promise<Uint8Array>;
  /** Puts a tensor onto a device. Rejects with CheckpointError, as `bytes` does, and where its type is none that is read, which it names. */
  weight(name: string, options: { readonly device: Device }): Promise<GgufWeight>;
  close(): Promise<void>;
}

/** Opens the file that stands beside the first under a name; null where there is none. */
type OpenPart = (name: string) => Promise<ByteSource | null>;

/** llama.cpp splits no model into more. */
const maxParts = 10_000;

/**
 * Opens a GGUF model, reading headers only. Where the file is the first of several (`split.count`, name-00001-of-00003.gguf), the others are opened by
 * `open`, which takes their names. Rejects with CheckpointError when a file is not what it claims, when one is missing, or is not of the same model.
 */
export async function readGguf(source: ByteSource, open: OpenPart = async () => null): Promise<GgufFile> {
  const sources = [source];
  try {
    const { metadata, entries: first } = await readGgufHeader(source);
    const entries = new Map<string, GgufEntry>();
    const home = new Map<string, ByteSource>();
    const include = (part: ByteSource, list: readonly GgufEntry[]): void => {
      for (const entry of list) {
        if (entries.has(entry.name)) throw wrong(part, `tensor "${entry.name}" is in another part too.`, "Fetch all parts of one model.");
        entries.set(entry.name, entry);
        home.set(entry.name, part);
      }
    };
    include(source, first);
    for (const name of partNames(source, metadata)) {
      const part = await open(name);
      if (!part) throw wrong(source, `"${name}", another part of the model, is not beside it.`, "Fetch all parts into one folder.");
      sources.push(part);
      const header = await readGgufHeader(part);
      if (header.metadata.get("split.no") !== sources.length - 1)
        throw wrong(part, `it does not say that it is part ${sources.length}.`, "Fetch all parts of one model.");
      include(part, header.entries);
    }
    const total = metadata.get("split.tensors.count");
    if (sources.length > 1 && typeof total === "number" && total !== entries.size)
      throw wrong(source, `its parts hold ${entries.size} tensors, and it says ${total}.`, "Fetch all parts of one model.");
    const placeOf = (name: string): readonly [GgufEntry, ByteSource] => {
      const [entry, part] = [entries.get(name), home.get(name)];
      if (entry && part) return [entry, part];
      const held = [...entries.keys()];
      throw wrong(source, `there is no tensor "${name}".`, `It holds ${held.slice(0, 8).join(", ")}${held.length > 8 ? ", …" : ""}.`);
    };
    return {
      name: source.name,
      metadata,
      entries,
      bytes: async (name) => readBytes(...placeOf(name)),
      weight: async (name, { device }) => weightOf(...placeOf(name), device),
      close: () => closeAll(sources),
    };
  } catch (error) {
    // The first is its opener's; the parts were opened here.
    await closeAll(sources.slice(1));
    throw error;
  }
}

async function readBytes({ name, offset, bytes: length }: GgufEntry, part: ByteSource): Promise<Uint8Array> {
  const bytes = await part.read(offset, length);
  if (bytes.byteLength === length) return bytes;
  throw wrong(part, `the file ended inside tensor "${name}".`, "It changed while it was read: fetch it again.");
}

async function weightOf(entry: GgufEntry, part: ByteSource, device: Device): Promise<GgufWeight> {
  const { name, type, shape } = entry;
  const blocks = blockTypes.get(type.name);
  const dtype = Object.hasOwn(plain, type.name) ? plain[type.name as keyof typeof plain] : undefined;
  if (!blocks && !dtype)
    throw wrong(
      part,
      `tensor "${name}" is ${type.name}, which is not read.`,
      `Convert the model to one of ${[...Object.keys(plain), ...blockTypes.keys()].join(", ")}.`,
    );
  const bytes = await readBytes(entry, part);
  if (blocks) return blockTensor(blocks, bytes, shape, device);
  const tensor = fromBytes(bytes, dtype ?? "f32", shape, device);
  return { shape, bytes: bytes.byteLength, values: () => tensor, dispose: () => tensor.dispose() };
}

/** Names of the parts after the first. */
function partNames(source: ByteSource, metadata: ReadonlyMap<string, GgufValue>): readonly string[] {
  const [count = 1, number = 0] = [metadata.get("split.count"), metadata.get("split.no")];
  if (count === 0 || count === 1) return [];
  if (typeof count !== "number" || count > maxParts || count < 0)
    throw wrong(source, "its split.count is not a count of files.", "Fetch the file again.");
  if (number !== 0) throw wrong(source, `it is a later part of a model in ${count} files.`, "Give the first, whose name has 00001.");
  const [, stem] = /([^/\\?#]*)-00001-of-\d{5}\.gguf(?:[?#].*)?$/.exec(source.name) ?? [];
  if (stem === undefined)
    throw wrong(
      source,
      `it is the first of ${count} files, whose name does not end with -00001-of-${five(count)}.gguf.`,
      "Give all parts their own names back.",
    );
  return Array.from({ length: count - 1 }, (_, i) => `${stem}-${five(i + 2)}-of-${five(count)}.gguf`);
}

const five = (number: number): string => String(number).padStart(5, "0");

async function closeAll(sources: readonly ByteSource[]): Promise<void> {
  for (const source of sources) await source.close?.();
}

function wrong(source: ByteSource, fact: string, remedy: string): CheckpointError {
  return new CheckpointError(`${source.name}: ${fact} ${remedy}`, source.name);
}
