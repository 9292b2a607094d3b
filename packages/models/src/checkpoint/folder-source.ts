import { CheckpointError, type FileSystem, type SafetensorsFile } from "@lowrank/tensor";
import type { FamilyConfig } from "../families/read.js";
import { shown } from "../schema.js";
import { readJson } from "./folder.js";
import { openFiles } from "./open.js";
import type { PackingMethod } from "./packed/method.js";
import { packingMethods } from "./packed/table.js";
import type { SaidPacking } from "./packing-field.js";
import { DenseWeight } from "./stored/dense-weight.js";
import type { Place, StoredTensors, StoredWeight, WeightSource } from "./stored/stored.js";

/**
 * The weights of a folder in the Hugging Face layout: safetensors files, packed or not. `packing`: null where config.json does not say. `isOutline`: whether the
 * weights are to be without values, and nothing but headers, and what else says how weights lie, is read.
 */
export async function folderSource(
  files: FileSystem,
  folder: string,
  config: FamilyConfig,
  packing: SaidPacking | null,
  isOutline = false,
): Promise<WeightSource> {
  const whole = await openFiles(files, folder);
  const opened = isOutline ? whole.map(headersOnly) : whole;
  const configPath = files.join(folder, "config.json");
  return {
    name: folder,
    configPath,
    count: opened.reduce((sum, { entries }) => sum + entries.size, 0),
    async stored(known) {
      const said = packing ?? (await quantizeConfig(opened, files, folder));
      const found = said && Object.hasOwn(packingMethods, said.name) ? packingMethods[said.name] : undefined;
      if (!said) checkPlain(opened, config, configPath);
      else if (!found) checkDense(opened, config, said.name, configPath);
      // Floats of 8 bits say themselves what they are.
      const method = (found ?? packingMethods["fp8"])?.(said?.options ?? {}, configPath) as PackingMethod; // in the table
      const located = await locate(opened, { config, known, method });
      return said && located.parts.size === 0 ? { ...located, notes: [noneIsPacked(said.name, configPath)] } : located;
    },
    async close() {
      for (const file of opened) await file.close();
    },
  };
}

/** A file whose tensors are as long as they are, and empty: nothing of them is read, and all have one digest. */
function headersOnly(file: SafetensorsFile): SafetensorsFile {
  const nothing = async (): Promise<string> => "";
  return { ...file, weightInto: nothing, weightNumbers: nothing, digest: nothing, stream: nothing };
}

/** What AutoGPTQ wrote beside config.json before that said it. */
async function quantizeConfig(opened: readonly SafetensorsFile[], files: FileSystem, folder: string): Promise<SaidPacking | null> {
  if (!opened.some(({ entries }) => [...entries.keys()].some((name) => name.endsWith(".qweight")))) return null;
  const options = await readJson(files, files.join(folder, "quantize_config.json"));
  return options && { name: String(options["quant_method"] ?? "gptq"), options };
}

/** Throws CheckpointError where weights are packed, and nothing says how. */
function checkPlain(opened: readonly SafetensorsFile[], config: FamilyConfig, path: string): void {
  const names = new Set(opened.flatMap(({ entries }) => [...entries.keys()].filter((name) => isOwn(name, config))));
  const found = [...names].find(
    (name) =>
      /\.(qweight|absmax|SCB)$/.test(name) ||
      (/[._]scales$/.test(name) && ["biases", "blocks"].some((other) => names.has(name.replace(/scales$/, other)))),
  );
  if (found === undefined) return;
  throw new CheckpointError(
    `${path}: "${found}" is part of a quantized weight, and no "quantization_config" says by which tool and how. Fetch config.json of the same checkpoint.`,
    path,
  );
}

/** Throws CheckpointError where a tensor has a dtype in which quantized weights are packed: where none has, it was so before they were unpacked. */
function checkDense(opened: readonly SafetensorsFile[], config: FamilyConfig, method: string, path: string): void {
  const own = opened.flatMap(({ entries }) => [...entries.values()].filter(({ name }) => isOwn(name, config)));
  if (own.every(({ dtype }) => /^B?F(16|32|64)$/.test(dtype))) return;
  throw new CheckpointError(
    `${path}: the weights are quantized by ${shown(method)}, which is not read. Use the checkpoint in bf16, f16 or f32, or one that is quantized by ${Object.keys(packingMethods).join(", ")}, or in GGUF.`,
    path,
  );
}

/** Of a config that says what its weights are not, for instance since they were unpacked: transformers refuses it, or looks for packed ones. */
const noneIsPacked = (method: string, path: string): string =>
  `${path}: it says that weights are quantized by ${shown(method)}, and none is: they are read as they stand. Take "quantization_config" out of it if they were unpacked, else fetch the quantized files.`;

/** Whether a tensor is of what stands beside the text model. */
const isForeign = (name: string, { family, options }: FamilyConfig): boolean =>
  (family.foreign?.test(name) ?? false) || (options.isForeign?.(name) ?? false);

/** Whether a tensor is the text model's. */
const isOwn = (name: string, config: FamilyConfig): boolean =>
  !isForeign(name, config) && !config.family.ignored?.test(name) && !config.options.isUnread?.(name);

/** What finding tensors depends on. */
interface Finding {
  readonly config: FamilyConfig;
  /** The names that the model may ask for. */
  readonly known: ReadonlySet<string>;
  readonly method: PackingMethod;
}

/** Finds what files hold: weights that stand for themselves, and those that several tensors are. */
async function locate(
  files: readonly SafetensorsFile[],
  finding: Finding,
): Promise<StoredTensors & Required<Pick<StoredTensors, "parts">>> {
  const { config, method, known } = finding;
  const repeated: string[] = [];
  const groups = new Map<string, Map<string, Place>>();
  const foreign: string[] = [];
  for (const file of files) {
    for (const name of file.entries.keys()) {
      if (isForeign(name, config)) foreign.push(name);
      if (!isOwn(name, config)) continue;
      const { weight, part } = (known.has(name) ? null : method.split(name)) ?? { weight: name, part: "" };
      const full = known.has(weight) ? weight : ownName(weight, finding);
      const parts = groups.get(full) ?? new Map<string, Place>();
      groups.set(full, parts);
      const first = parts.get(part);
      // Some tools write what shards share into each of them; what is the same in both is read once.
      if (first && (await first.file.digest(first.name)) !== (await file.digest(name)))
        repeated.push(`"${name}" is there twice, and ${file.name} has other contents than ${first.file.name}`);
      if (!first) parts.set(part, { file, name });
    }
  }
  const weights = new Map<string, StoredWeight>();
  const packed = new Set<string>();
  const made = new Map<string, readonly Place[]>();
  for (const [name, parts] of groups) {
    const isAlone = parts.size === 1 && parts.has("");
    const weight = isAlone ? null : await method.pack(parts, name);
    if (weight) {
      weights.set(name, weight);
      made.set(name, [...parts.values()]);
      for (const place of parts.values()) packed.add(place.name);
    } else for (const [part, place] of parts) weights.set(part === "" ? name : place.name, new DenseWeight(place));
  }
  if (packed.size > 0)
    for (const [name, parts] of groups) {
      const place = parts.get("");
      if (place && !known.has(name) && parts.size === 1 && (await method.isSpare?.(place, packed))) weights.delete(name);
    }
  return { weights, repeated, foreign, parts: made };
}

/** What the model calls a tensor that a checkpoint calls otherwise: saved from the bare model, names lack their first part. */
function ownName(name: string, { config: { family, options }, known }: Finding): string {
  const { savedNames } = options;
  for (const spelt of savedNames ? [name.replace(savedNames[1], savedNames[0]), name] : [name]) {
    if (known.has(spelt)) return spelt;
    for (const [stored, own] of family.prefixes) {
      const full = own + spelt.slice(stored.length);
      if (spelt.startsWith(stored) && known.has(full)) return full;
    }
  }
  return name;
}
