import {
  CheckpointError,
  combinedDigest,
  type Device,
  type DType,
  type FileSystem,
  fromStorage,
  isAddress,
  isFloat,
  openFile,
  pageError,
  readSafetensors,
  type SafetensorsEntry,
  type SafetensorsFile,
  type Shape,
  Storage,
  showShape,
  sizeOf,
  type Tensor,
  tensorDType,
} from "@lowrank/tensor";
import type { DecoderOptions } from "../decoder/decoder.js";
import { type Family, parametersIn } from "../families/family.js";
import type { FamilyConfig } from "../families/read.js";
import type { ParameterSpec, StoredPiece } from "../parameters.js";
import { shardsOf, weightFiles } from "./files.js";
import { listed, readJson } from "./folder.js";

/** Where a tensor lies: its file, and its name there. */
interface Place {
  readonly file: SafetensorsFile;
  readonly name: string;
}

/**
 * Reads the tensors that the config asks for from `model.safetensors`, or from the shards that `model.safetensors.index.json` names.
 * Names, shapes and dtypes are checked before anything is read; everything that is missing, unexpected or of another shape is listed
 * in one CheckpointError, and so is a weight that is not finite. The digest is that of all tensors' contents as the files hold them;
 * `dtypes` are those that they have there, `foreign` the tensors of what is no text model.
 */
export async function readWeights(
  files: FileSystem,
  folder: string,
  read: FamilyConfig,
  options: { readonly device: Device; readonly dtype: DType | "auto" },
): Promise<{
  readonly tensors: Map<string, Tensor>;
  readonly dtypes: ReadonlyMap<string, DType>;
  readonly digest: string;
  readonly foreign: readonly string[];
}> {
  const opened = await openFiles(files, folder);
  try {
    // A layer has a tensor at least: more layers than tensors cannot be, and are not even listed.
    const count = opened.reduce((sum, { entries }) => sum + entries.size, 0);
    const layers = read.options.layers.count;
    if (layers > count)
      throw new CheckpointError(
        `${folder}: the tensors do not fit config.json: it asks for ${layers} layers, and there are ${count} tensors. Fetch config and weights of one checkpoint.`,
        folder,
      );
    const { name: head, isTied } = read.options.head;
    const tied = isTied ? [`${head}.weight`] : [];
    const places = match(opened, folder, read, parametersIn(read, options.device), tied);
    const tensors = new Map<string, Tensor>();
    const dtypes = new Map<string, DType>();
    const digests = new Map<string, string>();
    const dtype = options.dtype === "auto" ? {} : { dtype: options.dtype };
    for (const [name, { shape, pieces }] of places) {
      const [first] = pieces;
      if (!first) continue;
      if (pieces.length > 1) tensors.set(name, await joinedWeights(pieces, shape, { device: options.device, ...dtype }, digests));
      else {
        const { tensor, digest } = await first.file.weight(first.name, { device: options.device, ...dtype });
        tensors.set(name, tensor);
        digests.set(name, digest);
      }
      dtypes.set(name, storedDType(pieces));
    }
    const foreign = opened.flatMap(({ entries }) => [...entries.keys()]).filter((name) => read.family.foreign?.test(name));
    return { tensors, dtypes, digest: combinedDigest(digests), foreign };
  } finally {
    for (const file of opened) await file.close();
  }
}

/** One tensor of several whose contents follow each other. */
async function joinedWeights(
  pieces: readonly Place[],
  shape: Shape,
  { device, dtype }: { readonly device: Device; readonly dtype?: DType },
  digests: Map<string, string>,
): Promise<Tensor> {
  const storage = new Storage(device, dtype ?? storedDType(pieces), sizeOf(shape));
  let at = 0;
  try {
    for (const { file, name } of pieces) {
      digests.set(name, await file.weightInto(name, storage, at));
      at += sizeOf(file.entries.get(name)?.shape ?? []);
    }
  } catch (error) {
    storage.dispose();
    throw error;
  }
  return fromStorage(storage, shape);
}

/** The dtype that a parameter's pieces have, f32 where they differ. */
function storedDType(pieces: readonly Place[]): DType {
  const [first = "f32", ...others] = pieces.map(({ file, name }) => tensorDType(file.entries.get(name) as SafetensorsEntry, file.name)); // they were found there
  return others.every((other) => other === first) ? first : "f32";
}

/** A parameter, and where its pieces lie: one, for most. */
interface Found {
  readonly shape: Shape;
  readonly pieces: readonly Place[];
}

function match(
  opened: readonly SafetensorsFile[],
  folder: string,
  { family, options }: FamilyConfig,
  specs: ReadonlyMap<string, ParameterSpec>,
  tied: readonly string[],
): Map<string, Found> {
  const available = new Map<string, Place>();
  const problems: string[] = [];
  const known = new Set([...tied, ...[...specs].flatMap(([name, { pieces = [] }]) => [name, ...pieces.map((piece) => piece.name)])]);
  for (const file of opened) {
    for (const name of file.entries.keys()) {
      if (family.ignored?.test(name) || family.foreign?.test(name)) continue;
      const full = known.has(name) ? name : ownName(name, family, options.savedNames ?? null, known);
      if (available.has(full)) problems.push(`"${name}" is there twice`);
      available.set(full, { file, name });
    }
  }
  const wanted = new Map([...specs].map(([name, spec]) => [name, piecesOf(name, spec, available)] as const));
  const names = new Set([...wanted.values()].flatMap((pieces) => pieces.map((piece) => piece.name)));
  const missing = [...names].filter((name) => !available.has(name));
  const unexpected = [...available.keys()].filter((name) => !names.has(name) && !tied.includes(name));
  if (missing.length > 0) problems.push(`missing: ${listed(missing)}`);
  if (unexpected.length > 0) problems.push(`unexpected: ${listed(unexpected)}`);
  const places = new Map<string, Found>();
  for (const [name, pieces] of wanted) {
    const found: Place[] = [];
    for (const piece of pieces) {
      const place = available.get(piece.name);
      const entry = place?.file.entries.get(place.name);
      if (!place || !entry) continue;
      if (showShape(entry.shape) !== showShape(piece.shape)) {
        problems.push(`"${piece.name}" has the shape ${showShape(entry.shape)}, config.json asks for ${showShape(piece.shape)}`);
      } else if (!isFloat(tensorDType(entry, place.file.name)))
        problems.push(`"${piece.name}" is ${entry.dtype}, not a floating-point tensor`);
      found.push(place);
    }
    places.set(name, { shape: specs.get(name)?.shape ?? [], pieces: found });
  }
  if (problems.length > 0) {
    throw new CheckpointError(
      `${folder}: the tensors do not fit config.json: ${listedProblems(problems)}. Fetch config and weights of one checkpoint.`,
      folder,
    );
  }
  return places;
}

/** The tensors that a parameter is read from: those of its pieces, where it is not there itself. */
function piecesOf(name: string, { shape, pieces }: ParameterSpec, available: ReadonlyMap<string, Place>): readonly StoredPiece[] {
  return pieces && !available.has(name) ? pieces : [{ name, shape }];
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

function listedProblems(problems: readonly string[]): string {
  return problems.length <= 8 ? problems.join("; ") : `${problems.slice(0, 8).join("; ")}; and ${problems.length - 8} more`;
}

/** Opens the files with a folder's weights. Rejects with CheckpointError where there is none, or one lacks what its index says. */
async function openFiles(files: FileSystem, folder: string): Promise<SafetensorsFile[]> {
  const single = await openFile(files, files.join(folder, "model.safetensors"));
  if (single) return [await readSafetensors(single)];
  // A host lists no folders; there the usual index is asked for.
  const names = (await files.list(folder)) ?? [];
  const found = weightFiles(names.filter((name) => name !== "model.safetensors"));
  const indexPath = found?.kind === "files" ? null : files.join(folder, found?.name ?? "model.safetensors.index.json");
  const index = indexPath === null ? null : await readJson(files, indexPath);
  if (indexPath !== null && !index) throw await withoutWeights(files, folder);
  const shards = found?.kind === "files" ? new Map(found.names.map((name) => [name, []] as const)) : shardsOf(index, indexPath ?? folder);
  const opened: SafetensorsFile[] = [];
  try {
    for (const [shard, tensors] of shards) {
      const path = files.join(folder, shard);
      const source = await openFile(files, path);
      if (!source)
        throw (
          (await pageError(files, path)) ?? new CheckpointError(`${path} is missing, but ${indexPath} names it. Fetch the shard.`, path)
        );
      const file = await readSafetensors(source);
      opened.push(file);
      const absent = tensors.filter((name) => !file.entries.has(name));
      if (absent.length > 0)
        throw new CheckpointError(`${path}: ${indexPath} says that it holds ${listed(absent)}, but it does not. Fetch both again.`, path);
    }
  } catch (error) {
    for (const file of opened) await file.close();
    throw error;
  }
  return opened;
}

async function withoutWeights(files: FileSystem, folder: string): Promise<CheckpointError> {
  const page = await pageError(files, files.join(folder, "model.safetensors"));
  if (page) return page;
  if (isAddress(folder))
    return new CheckpointError(
      `${folder}: the host has no model.safetensors and no model.safetensors.index.json. Check the address, or put the weights there.`,
      folder,
    );
  const names = (await files.list(folder)) ?? [];
  const pickles = names.filter((name) => /\.(bin|pt|pth|ckpt)$/.test(name));
  const remedy =
    pickles.length > 0
      ? `${listed(pickles)} can run code when unpickled and is not read; convert it in Python with save_pretrained(..., safe_serialization=True).`
      : `The folder holds ${names.length > 0 ? listed(names) : "nothing"}; fetch the weights.`;
  return new CheckpointError(`${folder}: there is no model.safetensors and no model.safetensors.index.json. ${remedy}`, folder);
}
