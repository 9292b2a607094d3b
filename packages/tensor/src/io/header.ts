import { CheckpointError, showShape } from "../tensor/errors.js";
import type { ByteSource } from "./source.js";

/** Bits of one element of every dtype that the format knows; which of them can become tensors is for `read.ts` to say. */
const dtypeBits: Readonly<Record<string, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

/** One tensor as the header describes it. */
export interface SafetensorsEntry {
  readonly name: string;
  /** The format's own name: F32, BF16, I64, … */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Where its bytes begin, from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

/** The header of a safetensors file, found true to the file's length. */
export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of the bytes. */
  readonly entries: readonly SafetensorsEntry[];
}

/** The reference implementation's own limit. */
const maxHeaderBytes = 100_000_000;

/**
 * Reads and checks a header before anything is allocated for tensors: known dtypes, sane shapes, byte ranges that fill the file
 * without gap or overlap. Throws CheckpointError. https://huggingface.co/docs/safetensors#format
 */
export async function readHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const wrong = (fact: string, remedy = "Fetch or save the file again."): CheckpointError =>
    new CheckpointError(`${source.name}: ${fact} ${remedy}`, source.name);
  const start = await source.read(0, Math.min(8, source.byteLength));
  const notOurs = (fact: string): CheckpointError => {
    const foreign = foreignFormat(start);
    if (!foreign) return wrong(fact, "The file is truncated or no safetensors file: fetch it again.");
    return wrong(
      `this is ${foreign}, not a safetensors file.`,
      'Convert it: save_pretrained(..., safe_serialization=True) of transformers writes "model.safetensors".',
    );
  };
  if (start.byteLength < 8) throw notOurs(`${source.byteLength} bytes are too few for a safetensors file.`);
  const view = new DataView(start.buffer, start.byteOffset, 8);
  const headerBytes = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  if (headerBytes > source.byteLength - 8) {
    throw notOurs(`the header claims ${headerBytes} bytes, the file holds ${source.byteLength - 8} after the first eight.`);
  }
  if (headerBytes > maxHeaderBytes) throw notOurs(`a header of ${headerBytes} bytes is above the format's limit of ${maxHeaderBytes}.`);
  const json = parse(await source.read(8, headerBytes));
  if (!isRecord(json)) throw notOurs("the header is not a JSON object.");

  const dataStart = 8 + headerBytes;
  const dataBytes = source.byteLength - dataStart;
  const entries: SafetensorsEntry[] = [];
  let metadata: Readonly<Record<string, string>> = {};
  for (const [name, value] of Object.entries(json)) {
    if (name === "__metadata__") {
      if (value === null) continue; // as MLX writes it
      if (!isRecord(value) || Object.values(value).some((item) => typeof item !== "string"))
        throw wrong("__metadata__ is not a map from strings to strings.");
      metadata = value as Record<string, string>;
      continue;
    }
    const problem = entryProblem(value, dataBytes);
    if (problem) throw wrong(`tensor "${shorten(name)}" ${problem}.`);
    const { dtype, shape, data_offsets: range } = value as { dtype: string; shape: number[]; data_offsets: [number, number] };
    entries.push({ name, dtype, shape, offset: dataStart + range[0], bytes: range[1] - range[0] });
  }
  entries.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let end = dataStart;
  let last = "the header";
  for (const { name, offset, bytes } of entries) {
    if (offset < end) throw wrong(`tensors "${shorten(last)}" and "${shorten(name)}" overlap by ${end - offset} bytes.`);
    if (offset > end) throw wrong(`${offset - end} bytes between "${shorten(last)}" and "${shorten(name)}" belong to no tensor.`);
    end = offset + bytes;
    last = name;
  }
  if (end !== source.byteLength) throw wrong(`${source.byteLength - end} bytes after "${shorten(last)}" belong to no tensor.`);
  return { metadata, entries };
}

function entryProblem(value: unknown, dataBytes: number): string | null {
  if (!isRecord(value)) return "is not described by a JSON object";
  const { dtype, shape, data_offsets: range } = value;
  if (typeof dtype !== "string") return "has no dtype";
  const bits = Object.hasOwn(dtypeBits, dtype) ? dtypeBits[dtype] : undefined;
  if (bits === undefined) return `has the unknown dtype ${shorten(dtype)} (known: ${Object.keys(dtypeBits).join(", ")})`;
  if (!Array.isArray(shape) || !shape.every(isCount)) return "has a shape that is not a list of integers of at least 0";
  if (shape.length > 64) return `has ${shape.length} axes`;
  if (!Array.isArray(range) || range.length !== 2 || !range.every(isCount))
    return "has data_offsets that are not two integers of at least 0";
  const [from, to] = range as [number, number];
  if (to < from) return `ends at byte ${to}, before its begin at ${from}`;
  if (to > dataBytes) return `ends at byte ${to}, beyond the ${dataBytes} bytes of data`;
  // A product of safe integers may be inexact above 2^53, but then it is far above any file's length too.
  const elements = shape.reduce((product, size) => product * size, 1);
  const needed = (elements * bits) / 8;
  if (needed !== to - from) return `of shape ${showShape(shape)} and dtype ${dtype} needs ${needed} bytes, its range holds ${to - from}`;
  return null;
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

/** Formats that are often found under a checkpoint's name, by their first bytes. */
function foreignFormat(start: Uint8Array): string | null {
  const [a, b = 0, c, d] = start;
  if (a === 0x80 && b >= 2 && b <= 5) return "a Python pickle";
  if (a === 0x50 && b === 0x4b && c === 3 && d === 4) return "a zip archive (a PyTorch pickle checkpoint)";
  if (a === 0x47 && b === 0x47 && c === 0x55 && d === 0x46) return "a GGUF file";
  if (a === 0x89 && b === 0x48 && c === 0x44 && d === 0x46) return "an HDF5 file";
  if (new TextDecoder().decode(start).startsWith("version ")) return "a Git LFS pointer (the file itself was not fetched)";
  return /^<(!doc|html)/i.test(new TextDecoder().decode(start)) ? "an HTML page" : null;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function shorten(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
