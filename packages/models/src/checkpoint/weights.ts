import {
  CheckpointError,
  combinedDigest,
  type Device,
  type DType,
  type FileSystem,
  fromStorage,
  type Shape,
  Storage,
  showShape,
  sizeOf,
  type Tensor,
} from "@lowrank/tensor";
import { parametersIn } from "../families/family.js";
import type { FamilyConfig } from "../families/read.js";
import type { ParameterSpec, StoredPiece } from "../parameters.js";
import { shown } from "../schema.js";
import { listed } from "./folder.js";
import { openFiles } from "./open.js";
import { asTensorsSay } from "./restated.js";
import { entryOf, locate, type Place, type StoredTensors, scalesOf, storedDType, unfitDType } from "./stored.js";

/** The tensors of a model, and what they say of it. */
export interface ReadWeights {
  /** The config as the tensors say that it is. */
  readonly read: FamilyConfig;
  readonly warnings: readonly string[];
  readonly tensors: Map<string, Tensor>;
  /** Those that they have in the files; what is in 8 bits there counts as bf16. */
  readonly dtypes: ReadonlyMap<string, DType>;
  /** Of all tensors' contents as the files hold them. */
  readonly digest: string;
  /** The tensors of what is no text model. */
  readonly foreign: readonly string[];
}

/**
 * Reads the tensors that the config asks for from a folder's safetensors files. Names, shapes and dtypes are checked before anything is read;
 * everything that is missing, unexpected or of another shape is listed in one CheckpointError, and so is a weight that is not finite.
 * `packedBy`: the method by which config.json says that weights are packed. Where all of them are dense, it was so before they were unpacked.
 */
export async function readWeights(
  files: FileSystem,
  folder: string,
  asFiled: FamilyConfig,
  { device, dtype: asked, packedBy }: { readonly device: Device; readonly dtype: DType | "auto"; readonly packedBy: string | null },
): Promise<ReadWeights> {
  const opened = await openFiles(files, folder);
  try {
    // A layer has a tensor at least: more layers than tensors cannot be, and are not even listed.
    const count = opened.reduce((sum, { entries }) => sum + entries.size, 0);
    const layers = asFiled.options.layers.count;
    if (layers > count)
      throw new CheckpointError(
        `${folder}: the tensors do not fit config.json: it asks for ${layers} layers, and there are ${count} tensors. Fetch config and weights of one checkpoint.`,
        folder,
      );
    const head = `${asFiled.options.head.name}.weight`;
    const namesOf = (specs: ReadonlyMap<string, ParameterSpec>): string[] =>
      [...specs].flatMap(([name, { pieces = [] }]) => [name, ...pieces.map((piece) => piece.name)]);
    const filed = parametersIn(asFiled, device);
    const stored = locate(opened, asFiled.family, asFiled.options.savedNames ?? null, new Set([head, ...namesOf(filed)]));
    const configPath = files.join(folder, "config.json");
    if (packedBy !== null) checkDense(stored, packedBy, configPath);
    const { read, warnings } = await asTensorsSay(asFiled, configPath, stored);
    const specs = read === asFiled ? filed : parametersIn(read, device);
    const found = match(stored, folder, specs, read.options.head.isTied ? [head] : []);
    const tensors = new Map<string, Tensor>();
    const dtypes = new Map<string, DType>();
    const digests = new Map<string, string>();
    for (const [name, pieces] of found) {
      const natural = naturalDType(pieces, stored);
      tensors.set(
        name,
        await loaded(pieces, specs.get(name)?.shape ?? [], { device, dtype: asked === "auto" ? natural : asked, stored }, digests),
      );
      dtypes.set(name, natural);
    }
    const foreign = opened.flatMap(({ entries }) => [...entries.keys()]).filter((name) => read.family.foreign?.test(name));
    return { read, warnings, tensors, dtypes, digest: combinedDigest(digests), foreign };
  } finally {
    for (const file of opened) await file.close();
  }
}

/** Throws CheckpointError where a tensor has a dtype in which quantized weights are packed. */
function checkDense({ places }: StoredTensors, method: string, path: string): void {
  if ([...places.values()].every((place) => /^B?F(16|32|64)$/.test(entryOf(place).dtype))) return;
  throw new CheckpointError(
    `${path}: the weights are quantized by ${shown(method)}, which is not read (fp8 is, in F8_E4M3 with scales). Use the checkpoint in bf16, f16 or f32.`,
    path,
  );
}

/** A tensor of a checkpoint that is a parameter or a piece of one, and where it lies. */
interface Found extends Place {
  /** The model's name for it. */
  readonly own: string;
}

/** One parameter of the pieces whose contents follow each other: one, for most. */
async function loaded(
  pieces: readonly Found[],
  shape: Shape,
  { device, dtype, stored }: { readonly device: Device; readonly dtype: DType; readonly stored: StoredTensors },
  digests: Map<string, string>,
): Promise<Tensor> {
  const storage = new Storage(device, dtype, sizeOf(shape));
  let at = 0;
  try {
    for (const { file, name, own } of pieces) {
      const scaled = await scalesOf(own, stored);
      digests.set(pieces.length > 1 ? name : own, await file.weightInto(name, storage, at, scaled?.scales));
      if (scaled) digests.set(`scales of ${own}`, scaled.digest);
      at += sizeOf(file.entries.get(name)?.shape ?? []);
    }
  } catch (error) {
    storage.dispose();
    throw error;
  }
  return fromStorage(storage, shape);
}

/** The dtype that a parameter's pieces have, f32 where they differ. */
function naturalDType(pieces: readonly Found[], stored: StoredTensors): DType {
  const [first = "f32", ...others] = pieces.map((piece) => storedDType(piece.own, piece, stored));
  return others.every((other) => other === first) ? first : "f32";
}

/** Which tensors each parameter is read from. Throws CheckpointError with all that does not fit. `tied` may be there without being asked for. */
function match(
  stored: StoredTensors,
  folder: string,
  specs: ReadonlyMap<string, ParameterSpec>,
  tied: readonly string[],
): Map<string, readonly Found[]> {
  const { places } = stored;
  const problems = stored.repeated.map((name) => `"${name}" is there twice`);
  const wanted = new Map([...specs].map(([name, spec]) => [name, piecesOf(name, spec, places)] as const));
  const names = new Set([...wanted.values()].flatMap((pieces) => pieces.map((piece) => piece.name)));
  const missing = [...names].filter((name) => !places.has(name));
  const unexpected = [...places.keys()].filter((name) => !names.has(name) && !tied.includes(name));
  if (missing.length > 0) problems.push(`missing: ${listed(missing)}`);
  if (unexpected.length > 0) problems.push(`unexpected: ${listed(unexpected)}`);
  const found = new Map<string, readonly Found[]>();
  for (const [name, pieces] of wanted) {
    const own: Found[] = [];
    for (const piece of pieces) {
      const place = places.get(piece.name);
      if (!place) continue;
      const { shape } = entryOf(place);
      const unfit = unfitDType(piece.name, place, stored);
      if (showShape(shape) !== showShape(piece.shape))
        problems.push(`"${piece.name}" has the shape ${showShape(shape)}, config.json asks for ${showShape(piece.shape)}`);
      else if (unfit !== null) problems.push(unfit);
      own.push({ ...place, own: piece.name });
    }
    found.set(name, own);
  }
  if (problems.length > 0) {
    throw new CheckpointError(
      `${folder}: the tensors do not fit config.json: ${listedProblems(problems)}. Fetch config and weights of one checkpoint.`,
      folder,
    );
  }
  return found;
}

/** The tensors that a parameter is read from: those of its pieces, where it is not there itself. */
function piecesOf(name: string, { shape, pieces }: ParameterSpec, places: ReadonlyMap<string, Place>): readonly StoredPiece[] {
  return pieces && !places.has(name) ? pieces : [{ name, shape }];
}

function listedProblems(problems: readonly string[]): string {
  return problems.length <= 8 ? problems.join("; ") : `${problems.slice(0, 8).join("; ")}; and ${problems.length - 8} more`;
}
