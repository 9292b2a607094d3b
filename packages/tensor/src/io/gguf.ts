import { CheckpointError } from "../tensor/errors.js";
import { type GgufEntry, type GgufValue, readGgufHeader } from "./gguf-header.js";
import type { ByteSource } from "./source.js";

/** An opened model of one GGUF file or several, whose headers were found sound. Nothing of its tensors is read yet. */
export interface GgufFile {
  readonly name: string;
  /** The first file's. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** By name, in the order of the files and of their bytes. */
  readonly entries: ReadonlyMap<string, GgufEntry>;
  /** A tensor's bytes as they are stored. Rejects with CheckpointError where there is none of that name, or the file has become shorter. */
  bytes(name: string): Promise<Uint8Array>;
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
    return {
      name: source.name,
      metadata,
      entries,
      bytes: async (name) => {
        const [entry, part] = [entries.get(name), home.get(name)];
        if (!entry || !part)
          throw wrong(
            source,
            `there is no tensor "${name}".`,
            `It holds ${[...entries.keys()].slice(0, 8).join(", ")}${entries.size > 8 ? ", …" : ""}.`,
          );
        const bytes = await part.read(entry.offset, entry.bytes);
        if (bytes.byteLength !== entry.bytes)
          throw wrong(part, `the file ended inside tensor "${name}".`, "It changed while it was read: fetch it again.");
        return bytes;
      },
      close: () => closeAll(sources),
    };
  } catch (error) {
    // The first is its opener's; the parts were opened here.
    await closeAll(sources.slice(1));
    throw error;
  }
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
