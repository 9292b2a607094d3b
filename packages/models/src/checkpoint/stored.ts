import {
  type BlockScales,
  CheckpointError,
  type DType,
  isFloat,
  type SafetensorsEntry,
  type SafetensorsFile,
  scaledDType,
  tensorDType,
} from "@lowrank/tensor";
import type { DecoderOptions } from "../decoder/decoder.js";
import type { Family } from "../families/family.js";

/** Where a tensor lies: its file, and its name there. */
export interface Place {
  readonly file: SafetensorsFile;
  readonly name: string;
}

/** What some files hold, by the names that the model has for it. */
export interface StoredTensors {
  readonly places: Map<string, Place>;
  /** Of tensors in 8 bits: where their scales lie. */
  readonly scales: ReadonlyMap<string, Place>;
  /** Names that are there more than once. */
  readonly repeated: readonly string[];
}

/** What the scales of a weight are called, and those of its input, which a weight that is widened does not need. */
const scaleSuffix = "_scale_inv";
const inputScale = /(^|[._])(activation|input)_scale$/;

/** Finds what files hold. `known`: the names that the model may ask for. */
export function locate(
  files: readonly SafetensorsFile[],
  family: Family,
  savedNames: DecoderOptions["savedNames"] | null,
  known: ReadonlySet<string>,
): StoredTensors {
  const places = new Map<string, Place>();
  const repeated: string[] = [];
  const fullName = (name: string): string => (known.has(name) ? name : ownName(name, family, savedNames, known));
  for (const file of files) {
    for (const name of file.entries.keys()) {
      if (family.ignored?.test(name) || family.foreign?.test(name)) continue;
      const full = name.endsWith(scaleSuffix) ? fullName(name.slice(0, -scaleSuffix.length)) + scaleSuffix : fullName(name);
      if (places.has(full)) repeated.push(name);
      places.set(full, { file, name });
    }
  }
  const scales = new Map<string, Place>();
  for (const [name, place] of places) {
    if (!entryOf(place).dtype.startsWith("F8_")) continue;
    const scale = places.get(name + scaleSuffix);
    if (scale) scales.set(name, scale);
  }
  for (const name of scales.keys()) places.delete(name + scaleSuffix);
  if (scales.size > 0)
    for (const [name, { name: stored }] of [...places]) if (inputScale.test(name) && inputScale.test(stored)) places.delete(name);
  return { places, scales, repeated };
}

/** What the model calls a tensor that a checkpoint calls otherwise: saved from the bare model, names lack their first part. */
function ownName(name: string, { prefixes }: Family, savedNames: DecoderOptions["savedNames"] | null, known: ReadonlySet<string>): string {
  for (const spelt of savedNames ? [name.replace(savedNames[1], savedNames[0]), name] : [name]) {
    if (known.has(spelt)) return spelt;
    for (const [stored, own] of prefixes) {
      const full = own + spelt.slice(stored.length);
      if (spelt.startsWith(stored) && known.has(full)) return full;
    }
  }
  return name;
}

export function entryOf({ file, name }: Place): SafetensorsEntry {
  return file.entries.get(name) as SafetensorsEntry; // it was found there
}

/** The dtype that a tensor has when it is loaded as it is: what is in 8 bits with scales is widened to bf16. */
export function storedDType(name: string, place: Place, { scales }: Pick<StoredTensors, "scales">): DType {
  const entry = entryOf(place);
  return entry.dtype === scaledDType && scales.has(name) ? "bf16" : tensorDType(entry, place.file.name);
}

/** Why a tensor cannot be a weight by its dtype; null where it can. */
export function unfitDType(name: string, place: Place, stored: Pick<StoredTensors, "scales">): string | null {
  const { dtype } = entryOf(place);
  if (dtype.startsWith("F8_") && !(dtype === scaledDType && stored.scales.has(name)))
    return `"${name}" is ${dtype}${dtype === scaledDType ? ` without "${name}${scaleSuffix}"` : ""}; of 8-bit floats only ${scaledDType} with its scales (…${scaleSuffix}, one or one a block) is read`;
  return isFloat(storedDType(name, place, stored)) ? null : `"${name}" is ${dtype}, not a floating-point tensor`;
}

/** The scales of a tensor, with their digest; null where it has none. Rejects with CheckpointError where one is not finite. */
export async function scalesOf(
  name: string,
  { scales }: Pick<StoredTensors, "scales">,
): Promise<{ readonly scales: BlockScales; readonly digest: string } | null> {
  const place = scales.get(name);
  if (!place) return null;
  const { dtype, shape } = entryOf(place);
  if (!/^B?F(16|32)$/.test(dtype))
    throw new CheckpointError(
      `${place.file.name}: the scales "${place.name}" are ${dtype}, and F32, BF16 and F16 are read. Convert the checkpoint to bf16.`,
      place.file.name,
    );
  const digest = await place.file.digest(place.name);
  return { scales: { values: await place.file.values(place.name), shape }, digest };
}
