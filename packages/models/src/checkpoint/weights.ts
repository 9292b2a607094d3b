import {
  CheckpointError,
  combinedDigest,
  concat,
  type Device,
  type DType,
  packedTensor,
  type QuantizedType,
  realize,
  type Shape,
  showShape,
  sizeOf,
  type Tensor,
  unpacked,
  type WeightQuantizer,
} from "@lowrank/tensor";
import { parametersIn } from "../families/family.js";
import type { FamilyConfig } from "../families/read.js";
import type { ParameterSpec, StoredPiece } from "../parameters.js";
import { parameterOutline, parameterQuantizer, quantizationOf } from "../quantization.js";
import { listed } from "./folder.js";
import { asTensorsSay } from "./restated.js";
import type { LoadedPieces, StoredTensors, StoredWeight, WeightSource } from "./stored/stored.js";

/** The tensors of a model, and what they say of it. */
export interface ReadWeights {
  /** The config as the tensors say that it is. */
  readonly read: FamilyConfig;
  readonly warnings: readonly string[];
  readonly tensors: Map<string, Tensor>;
  /** Those that they have in the files; what is in blocks or in 8 bits there counts as bf16. */
  readonly dtypes: ReadonlyMap<string, DType>;
  /** Of all tensors' contents as the files hold them. */
  readonly digest: string;
  /** The tensors of what is no text model. */
  readonly foreign: readonly string[];
}

/** Where weights go, and how: "auto" leaves each as it is stored, in blocks too; a dtype is that of all. */
export interface WeightOptions {
  readonly device: Device;
  readonly dtype: DType | "auto";
  /** What weights of products become, where it is not null. */
  readonly quantize?: QuantizedType | null;
  /** Whether weights get neither memory nor values, for planning: a source then gives headers alone. */
  readonly isOutline?: boolean;
}

/**
 * Reads the tensors that a config asks for. Names, shapes and dtypes are checked before anything is read; everything that is missing, unexpected or of
 * another shape is listed in one CheckpointError, and so is a weight that is not finite.
 */
export async function readWeights(source: WeightSource, asFiled: FamilyConfig, options: WeightOptions): Promise<ReadWeights> {
  const { name: folder, configPath, count } = source;
  // A layer has a tensor at least: more layers than tensors cannot be, and are not even listed.
  const layers = asFiled.options.layers.count;
  if (layers > count)
    throw new CheckpointError(
      `${folder}: the tensors do not fit config.json: it asks for ${layers} layers, and there are ${count} tensors. Fetch config and weights of one checkpoint.`,
      folder,
    );
  const head = `${asFiled.options.head.name}.weight`;
  const filed = parametersIn(asFiled, options.device);
  const stored = await source.stored(new Set([head, ...namesIn(filed)]));
  const { read, warnings: restated } = await asTensorsSay(asFiled, configPath, stored);
  const specs = read === asFiled ? filed : parametersIn(read, options.device);
  const found = match(stored, folder, specs, read.options.head.isTied ? [head] : []);
  const quantization = options.quantize ? quantizationOf(specs, head, options.quantize) : null;
  if (options.quantize) checkUnquantized(found, options.quantize, folder);
  const warnings = [...(stored.notes ?? []), ...restated, ...(quantization?.warnings ?? [])];
  const tensors = new Map<string, Tensor>();
  const dtypes = new Map<string, DType>();
  const digests = new Map<string, string>();
  try {
    for (const [name, pieces] of found) {
      const [spec, type] = [specs.get(name) as ParameterSpec, quantization?.types.get(name)]; // found by its name
      const loaded: Loaded = !type
        ? await load(pieces, spec, options)
        : options.isOutline
          ? { tensor: parameterOutline(type, spec, options.device), digests: [] }
          : await quantized(pieces, parameterQuantizer(type, spec, options.device, name));
      tensors.set(name, loaded.tensor);
      for (const [i, digest] of loaded.digests.entries()) digests.set(pieces.length > 1 ? (pieces[i]?.own ?? "") : name, digest);
      dtypes.set(name, naturalDType(pieces));
      if (loaded.note) warnings.push(`${folder}: ${name}: ${loaded.note}`);
    }
  } catch (error) {
    for (const tensor of tensors.values()) tensor.dispose();
    throw error;
  }
  return { read, warnings, tensors, dtypes, digest: combinedDigest(digests), foreign: stored.foreign };
}

/** The numbers of one parameter as a checkpoint holds them, f32, in its shape. Rejects with CheckpointError where it is no longer there, or damaged. */
export async function readNumbers(source: WeightSource, config: FamilyConfig, device: Device, name: string): Promise<Float32Array> {
  const specs = parametersIn(config, device);
  const { weights } = await source.stored(namesIn(specs));
  const spec = specs.get(name);
  const pieces = spec ? piecesOf(name, spec, weights) : [];
  const values = new Float32Array(sizeOf(spec?.shape ?? []));
  let at = 0;
  for (const piece of pieces)
    await weights.get(piece.name)?.numbers?.((part) => {
      values.set(part, at);
      at += part.length;
    });
  if (at === values.length) return values;
  throw new CheckpointError(`${source.name}: ${name} is not there as it was when the model was loaded. Load the model again.`, source.name);
}

/** The names of parameters and of their pieces. */
const namesIn = (specs: ReadonlyMap<string, ParameterSpec>): Set<string> =>
  new Set([...specs].flatMap(([name, { pieces = [] }]) => [name, ...pieces.map((piece) => piece.name)]));

/** A weight of a checkpoint that is a parameter or a piece of one. */
interface Found {
  readonly weight: StoredWeight;
  /** The model's name for it. */
  readonly own: string;
}

/** A parameter as it was loaded, and a word on blocks that it could not keep. */
interface Loaded extends LoadedPieces {
  readonly note?: string;
}

/** One parameter of the pieces whose contents follow each other: one, for most. */
async function load(pieces: readonly Found[], { shape, isTransposed = false }: ParameterSpec, options: WeightOptions): Promise<Loaded> {
  const { device, dtype: asked } = options;
  const dtype = asked === "auto" ? naturalDType(pieces) : asked;
  const weights = pieces.map(({ weight }) => weight);
  const runs = alike(weights);
  if (runs.length > 1) return mixed(runs, shape, { device, dtype: asked });
  const [first] = weights as [StoredWeight]; // a parameter has one piece at least
  // Blocks lie along the inputs, also of a layer whose weight is [in, out].
  const isTurned = isTransposed && first.layout !== null;
  const { tensor, digests } = await first.load(weights, isTurned ? first.shape : shape, { device, dtype });
  if (!tensor.packing) return { tensor, digests };
  const kept = isTurned ? packedTensor(tensor.packing.type, tensor.packing.parts, () => tensor.t()) : tensor;
  return { tensor: asked === "auto" ? kept : await outOfBlocks(kept, dtype), digests };
}

/** Throws CheckpointError where a weight is in blocks already, or its numbers are not to be had. */
function checkUnquantized(found: ReadonlyMap<string, readonly Found[]>, type: QuantizedType, folder: string): void {
  for (const { weight } of [...found.values()].flat()) {
    if (weight.layout !== null)
      throw new CheckpointError(
        `${folder}: "${weight.name}" is quantized already, in ${weight.layout.type}, and is not quantized to ${type} again. Load it as it is, without \`quantize\` (none), or take the unquantized checkpoint.`,
        folder,
      );
    if (!weight.numbers)
      throw new CheckpointError(
        `${folder}: weights of this kind of file cannot be quantized while they are loaded. Take a folder of safetensors files.`,
        folder,
      );
  }
}

/** A parameter whose numbers go through a quantizer, some at a time. */
async function quantized(pieces: readonly Found[], quantizer: WeightQuantizer): Promise<Loaded> {
  const digests: string[] = [];
  try {
    for (const { weight } of pieces) digests.push((await weight.numbers?.((values) => quantizer.add(values))) ?? "");
    return { tensor: quantizer.finish(), digests };
  } catch (error) {
    quantizer.dispose();
    throw error;
  }
}

/** A tensor in a dtype in place of its blocks. */
async function outOfBlocks(tensor: Tensor, dtype: DType): Promise<Tensor> {
  const dense = await unpacked(tensor, dtype);
  tensor.dispose();
  return dense;
}

/** Pieces in a row that are laid out alike. Dense ones are, whatever their dtypes. */
function alike(weights: readonly StoredWeight[]): StoredWeight[][] {
  const runs: StoredWeight[][] = [];
  for (const weight of weights) {
    const last = runs.at(-1);
    if (last && last[0]?.layout?.key === weight.layout?.key) last.push(weight);
    else runs.push([weight]);
  }
  return runs;
}

/** Memories that one expression reads and stays part of what is computed from it. */
const mostMemories = 6;

/** A parameter of pieces in blocks of several kinds: an expression that puts them one behind the other, or dense where that would be too long. */
async function mixed(runs: readonly (readonly StoredWeight[])[], shape: Shape, { device, dtype: asked }: WeightOptions): Promise<Loaded> {
  const loaded: LoadedPieces[] = [];
  try {
    for (const run of runs) {
      const [first] = run as [StoredWeight]; // runs are not empty
      loaded.push(await first.load(run, rowsOf(run), { device, dtype: naturalOf(run) }));
    }
  } catch (error) {
    for (const { tensor } of loaded) tensor.dispose();
    throw error;
  }
  const tensors = loaded.map(({ tensor }) => tensor);
  const digests = loaded.flatMap((each) => each.digests);
  const parts = tensors.flatMap((tensor, i) =>
    Object.entries(tensor.packing?.parts ?? { values: tensor }).map(([name, part]) => [`${i}.${name}`, part] as const),
  );
  const types = [...new Set(tensors.map(({ packing, dtype }) => packing?.type ?? dtype))].join(" and ");
  const whole = (of: readonly Tensor[]): Tensor => concat([...of], 0).reshape(shape);
  if (asked === "auto" && parts.length <= mostMemories)
    return { tensor: packedTensor(types, Object.fromEntries(parts), () => whole(tensors)), digests };
  const dtype = asked === "auto" ? "bf16" : asked;
  const dense: Tensor[] = [];
  for (const tensor of tensors) dense.push(tensor.packing ? await outOfBlocks(tensor, dtype) : tensor);
  const tensor = whole(dense).cast(dtype);
  await realize(tensor);
  for (const piece of dense) piece.dispose();
  if (asked !== "auto") return { tensor, digests };
  return { tensor, digests, note: `its pieces are ${types}, too many for one expression over blocks; they are kept in bf16.` };
}

/** Pieces one behind the other, as rows of the last axis, which is of one length. */
function rowsOf(run: readonly StoredWeight[]): Shape {
  const columns = run[0]?.shape.at(-1) ?? 1;
  return [run.reduce((sum, { shape }) => sum + sizeOf(shape), 0) / columns, columns];
}

/** The dtype that some weights have, f32 where they differ. */
function naturalOf([first, ...others]: readonly StoredWeight[]): DType {
  return others.every(({ dtype }) => dtype === first?.dtype) ? (first?.dtype ?? "f32") : "f32";
}

const naturalDType = (pieces: readonly Found[]): DType => naturalOf(pieces.map(({ weight }) => weight));

/** Which weights each parameter is read from. Throws CheckpointError with all that does not fit. `tied` may be there without being asked for. */
function match(
  stored: StoredTensors,
  folder: string,
  specs: ReadonlyMap<string, ParameterSpec>,
  tied: readonly string[],
): Map<string, readonly Found[]> {
  const { weights } = stored;
  const problems = [...stored.repeated];
  const wanted = new Map([...specs].map(([name, spec]) => [name, piecesOf(name, spec, weights)] as const));
  const names = new Set([...wanted.values()].flatMap((pieces) => pieces.map((piece) => piece.name)));
  const missing = [...names].filter((name) => !weights.has(name));
  const unexpected = [...weights.keys()].filter((name) => !names.has(name) && !tied.includes(name));
  if (missing.length > 0) problems.push(`missing: ${listed(missing)}`);
  if (unexpected.length > 0) problems.push(`unexpected: ${listed(unexpected)}`);
  const found = new Map<string, readonly Found[]>();
  for (const [name, pieces] of wanted) {
    const own: Found[] = [];
    for (const piece of pieces) {
      const weight = weights.get(piece.name);
      if (!weight) continue;
      const shape = specs.get(name)?.isTransposed && weight.layout ? [...piece.shape].reverse() : piece.shape;
      if (showShape(weight.shape) !== showShape(shape))
        problems.push(`"${piece.name}" has the shape ${showShape(weight.shape)}, config.json asks for ${showShape(shape)}`);
      else if (weight.problem !== null) problems.push(weight.problem);
      own.push({ weight, own: piece.name });
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
function piecesOf(name: string, { shape, pieces }: ParameterSpec, weights: StoredTensors["weights"]): readonly StoredPiece[] {
  return pieces && !weights.has(name) ? pieces : [{ name, shape }];
}

function listedProblems(problems: readonly string[]): string {
  return problems.length <= 8 ? problems.join("; ") : `${problems.slice(0, 8).join("; ")}; and ${problems.length - 8} more`;
}
