import { CheckpointError, type Shape, sizeOf } from "@lowrank/tensor";
import type { ParameterSpec, StoredPiece } from "../parameters.js";
import { shown } from "../schema.js";
import type { ReadConfig } from "./family.js";
import { checkLink, type GgufLink } from "./gguf/change.js";
import type { GgufField, GgufTarget, GgufTargets, GgufTensors } from "./gguf/description.js";
import { factorNames, type GgufFacts, GgufReader } from "./gguf/facts.js";
import { vocabulary } from "./gguf/keys.js";
import type { FamilyConfig } from "./read.js";
import { families } from "./table.js";

/** What a GGUF file says of a model, as a config.json. */
export interface GgufConfig {
  /** `model_type` and what the family reads; `readFamily` takes it. */
  readonly json: Readonly<Record<string, unknown>>;
  /** Keys of the architecture that nothing reads. */
  readonly unread: readonly string[];
}

/** Families that llama.cpp names, by the architectures of its files. */
const named = Object.entries(families).flatMap(([type, family]) =>
  (family.gguf?.architectures ?? []).map((architecture) => ({ type, architecture, family })),
);

/**
 * The config.json that a GGUF file's metadata and tensors stand for. Throws CheckpointError for an architecture of which there is no family, which
 * it names with those that there are, and for metadata that is missing or damaged, with its key.
 */
export function ggufConfig(facts: GgufFacts): GgufConfig {
  const architecture = facts.metadata.get("general.architecture");
  const known = named.filter((family) => family.architecture === architecture);
  if (known.length === 0 || typeof architecture !== "string") {
    const supported = [...new Set(named.map((family) => family.architecture))].join(", ");
    const fact =
      architecture === undefined
        ? 'the metadata has no "general.architecture"'
        : `the architecture ${typeof architecture === "string" ? shown(architecture) : "in its metadata"} is not supported`;
    throw new CheckpointError(`${facts.name}: ${fact}. Give a file of ${supported}.`, facts.name);
  }
  const file = new GgufReader(facts, architecture);
  const found = known.find(({ family }) => family.gguf?.isOurs(file) ?? false);
  if (!found)
    throw file.error(
      `its tensors are those of no model of the architecture ${architecture} that is supported.`,
      `Give a file of ${known.map(({ type }) => type).join(" or ")}.`,
    );
  const fields = { ...vocabulary(file), ...found.family.gguf?.read(file) };
  const json = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  return { json: { model_type: found.type, architectures: [found.family.className], ...json }, unread: file.unread };
}

/** The part of a family that knows GGUF files. Throws CheckpointError where llama.cpp does not have the family. */
function ggufOf({ family, config }: FamilyConfig, path: string): NonNullable<FamilyConfig["family"]["gguf"]> {
  if (family.gguf) return family.gguf;
  throw new CheckpointError(
    `${path}: llama.cpp has no architecture for ${config.model_type}, so there is no GGUF file of it. Save it as safetensors.`,
    path,
  );
}

/**
 * The metadata under which llama.cpp's converter files a config: `general.architecture` and what stands below its name. Throws CheckpointError
 * where llama.cpp does not have the family, or no file can say what the config does.
 */
export function ggufMetadata(read: FamilyConfig, path: string): ReadonlyMap<string, GgufField> {
  const { architecture, fields } = ggufOf(read, path).write(read.config, path);
  const entries = Object.entries(fields).flatMap(([key, field]) => (field ? [[`${architecture}.${key}`, field] as const] : []));
  return new Map([["general.architecture", { type: "string", value: architecture } as const], ...entries]);
}

/** What llama.cpp does with a file of this config otherwise than the file says, a sentence each. */
export function ggufNotes(read: FamilyConfig, path: string): readonly string[] {
  return ggufOf(read, path).notes(read.config, path);
}

/** Tensors beside which llama.cpp looks for no adapter's pair; null where there are none. */
export function ggufUnpaired(read: FamilyConfig, path: string): RegExp | null {
  return ggufOf(read, path).unpaired(read.config, path);
}

/** Vectors that stand in a file beside the parameters, made of the config: what frequencies are divided by. */
export function ggufFactors(read: FamilyConfig, path: string): ReadonlyMap<string, Float32Array> {
  return new Map(Object.entries(ggufOf(read, path).factors(read.config, path)));
}

/**
 * The tensors of a GGUF file for each parameter of a model, with what lies between their numbers. `names`: what the file holds, where there is one:
 * some tensors have other forms. Without it, for writing, there are also
 * links without parameters, whose tensors are zeros. Throws CheckpointError where llama.cpp does not have the family, or a parameter.
 */
export function ggufLinks(
  read: FamilyConfig,
  specs: ReadonlyMap<string, Pick<ParameterSpec, "shape">>,
  path: string,
  names: { has(name: string): boolean } | null = null,
): readonly GgufLink[] {
  const targets = ggufOf(read, path).targets(read.config, path);
  const links: GgufLink[] = [];
  const shared = new Map<string, { parameters: StoredPiece[]; tensor: StoredPiece }>();
  for (const [name, { shape }] of specs) {
    const found = targetOf(name, shape, read.options, targets);
    if (!found)
      throw new CheckpointError(
        `${path}: the architecture of llama.cpp for ${read.config.model_type} has no tensor for "${name}". Save the model as safetensors.`,
        path,
      );
    const made = names ? chosen(found.made, names) : found.made;
    const [first] = made.tensors;
    const isShared = made.isShared ?? found.isOneOfSeveral;
    const stack = isShared && first ? shared.get(first.name) : undefined;
    if (stack) stack.parameters.push({ name, shape });
    else if (isShared && first) {
      const begun = { parameters: [{ name, shape }], tensor: first };
      shared.set(first.name, begun);
      links.push({ parameters: begun.parameters, tensors: [first], changes: made.changes ?? [] });
    } else links.push({ parameters: [{ name, shape }], tensors: made.tensors, changes: made.changes ?? [] });
  }
  if (!names) for (const piece of ggufOf(read, path).unread(read.config, path)) links.push(zeros(piece));
  for (const link of links) checkLink(link);
  return links;
}

/** The head of tied embeddings, filed beside them for an architecture that llama.cpp loads with a head alone; none for others. */
export function repeatedHead({ family, options }: FamilyConfig, links: readonly GgufLink[]): readonly GgufLink[] {
  const head = "output.weight";
  if (!family.gguf?.hasOwnHead || links.some(({ tensors }) => tensors.some(({ name }) => name === head))) return [];
  const embedding = links.find(({ parameters }) => parameters[0]?.name === `${options.embedding.name}.weight`);
  return embedding ? [{ ...embedding, tensors: embedding.tensors.map((piece) => ({ ...piece, name: head })) }] : [];
}

/** A tensor that llama.cpp asks for and no parameter stands for. */
function zeros({ name, shape }: StoredPiece): GgufLink {
  const width = shape.at(-1) ?? 1;
  return { parameters: [], tensors: [{ name, shape }], changes: [{ kind: "rows", width, file: sizeOf(shape) / width, model: 0 }] };
}

/**
 * The tensors of a file that a model has no use for, though it should have: neither a parameter's, nor factors of its config, nor of layers that
 * only foretell tokens.
 */
export function ggufUnexpected(names: Iterable<string>, read: FamilyConfig, links: readonly GgufLink[]): readonly string[] {
  const used = new Set([...factorNames, ...links.flatMap(({ tensors }) => tensors.map(({ name }) => name))]);
  const layers = read.options.layers.count;
  const isKnown = (name: string): boolean => {
    const layer = /^blk\.(\d+)\./.exec(name)?.[1];
    return used.has(name) || (layer !== undefined && Number(layer) >= layers) || (read.family.gguf?.ignored?.test(name) ?? false);
  };
  return [...names].filter((name) => !isKnown(name));
}

/** Of several forms the one that a file has; the first where it has none. */
function chosen(tensors: GgufTensors, names: { has(name: string): boolean }): GgufTensors {
  for (let form: GgufTensors | undefined = tensors; form; form = form.instead)
    if (form.tensors.every(({ name }) => names.has(name))) return form;
  return tensors;
}

/** Where a parameter's tensors are said, and what they are called in the file. */
function targetOf(
  name: string,
  shape: Shape,
  { embedding, norm, head, layers }: ReadConfig["options"],
  { layer: inLayer, model: inModel }: { readonly layer: GgufTargets; readonly model: GgufTargets },
): { readonly made: GgufTensors; readonly isOneOfSeveral: boolean } | null {
  const dot = name.lastIndexOf(".");
  const [module, suffix] = [name.slice(0, dot), name.slice(dot + 1)];
  const usual = new Map([
    [embedding.name, inModel["embedding"] ?? "token_embd"],
    [norm.name, inModel["norm"] ?? "output_norm"],
    [head.name, inModel["head"] ?? "output"],
  ]);
  const made = (target: GgufTarget, own: string, layer: number): GgufTensors =>
    prefixed(typeof target === "string" ? { tensors: [{ name: own, shape }] } : target({ shape, suffix, layer }), layer);
  const top = usual.get(module);
  if (top !== undefined) return { made: made(top, `${String(top)}.${suffix}`, -1), isOneOfSeveral: false };
  const isOfLayer = name.startsWith(`${layers.name}.`);
  const rest = name.slice((isOfLayer ? layers.name : layers.name.slice(0, layers.name.lastIndexOf("."))).length + 1);
  const [number = "", ...parts] = rest.split(".");
  const layer = isOfLayer ? Number(number) : -1;
  const path = isOfLayer ? parts.join(".") : rest;
  const targets = isOfLayer ? inLayer : inModel;
  const owner = path.slice(0, Math.max(path.lastIndexOf("."), 0));
  const whole = targets[path];
  if (whole !== undefined) return { made: made(whole, String(whole), layer), isOneOfSeveral: false };
  const ofModule = targets[owner];
  if (ofModule !== undefined) return { made: made(ofModule, `${String(ofModule)}.${suffix}`, layer), isOneOfSeveral: false };
  const several = targets[owner.replace(/\.\d+$/, ".*")];
  return several === undefined ? null : { made: made(several, `${String(several)}.${suffix}`, layer), isOneOfSeveral: true };
}

function prefixed(tensors: GgufTensors, layer: number): GgufTensors {
  if (layer < 0) return tensors;
  return {
    ...tensors,
    tensors: tensors.tensors.map(({ name, shape }) => ({ name: `blk.${layer}.${name}`, shape })),
    ...(tensors.instead && { instead: prefixed(tensors.instead, layer) }),
  };
}
