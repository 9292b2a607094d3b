import { CheckpointError, type Device, type Tensor } from "@lowrank/tensor";
import * as z from "zod/mini";
import type { ModelConfig } from "../config.js";
import { Decoder, type DecoderOptions } from "../decoder/decoder.js";
import { assembled, type ParameterSpec, parametersOf, type StoredPiece } from "../parameters.js";
import { checked, isFloatField, rule } from "../schema.js";
import { inert, noLayerFields } from "./fields.js";
import type { GgufDescription, GgufField, GgufTargets } from "./gguf/description.js";
import type { GgufReader } from "./gguf/facts.js";
import { unreadRope } from "./rope.js";

/** Fields of a config.json by name, each with its check and its default. */
export type Fields = Readonly<Record<string, z.ZodMiniType<unknown, unknown>>>;

/** What a family's fields hold when they are checked. */
export type Checked<F extends Fields> = { readonly [name in keyof F]: z.output<F[name]> };

/** How a family is written down. */
interface FamilyDescription<F extends Fields> {
  /** The class in `architectures` of config.json. */
  readonly className: string;
  /** What the model is made by. */
  readonly fields: F;
  /** Rules over several fields: what is wrong, or null. */
  readonly rules?: readonly ((config: Checked<F>) => string | null)[];
  /** The model's parts and their names. `path` is the file's, for errors. */
  readonly decoder: (config: Checked<F>, path: string) => DecoderOptions;
  /** Tensors that checkpoints hold and that are no parameters of the text model: buffers of old files. */
  readonly ignored?: RegExp;
  /** Tensors of what stands beside the text model, skipped with a word: layers that predict further tokens. */
  readonly foreign?: RegExp;
  /** What names begin with in some checkpoints, and in the model: saved from the bare model, or inside of a larger one. */
  readonly prefixes?: readonly (readonly [stored: string, own: string])[];
  /** Other names that files may have for fields, and which count before the own ones: transformers' `attribute_map`. */
  readonly otherNames?: Readonly<Record<string, string>>;
  /** Tokens that end a text where the file does not say. */
  readonly endTokens?: readonly number[];
  /** Fields that change nothing of what the model computes. */
  readonly remarks?: readonly string[];
  /** How llama.cpp's converter files it; absent for a family that llama.cpp does not have. */
  readonly gguf?: GgufDescription<Checked<F>>;
}

/** A config.json that was read. */
export interface ReadConfig {
  /** As it was, with the defaults filled in. */
  readonly config: ModelConfig;
  /** What the decoder is made by. */
  readonly options: DecoderOptions;
  /** Fields that are in no table. */
  readonly unknown: readonly string[];
}

/** A family's GGUF files, both ways. */
export interface FamilyGguf {
  /** The names of `general.architecture` that are this family's. */
  readonly architectures: readonly string[];
  /** Whether a file of such an architecture is this family's. */
  readonly isOurs: (file: GgufReader) => boolean;
  /** Fields of a config.json. Throws CheckpointError naming the key that is wrong. */
  readonly read: (file: GgufReader) => Readonly<Record<string, unknown>>;
  /** The architecture of a config, and metadata by keys below its name. Throws CheckpointError for what no file can say. */
  readonly write: (
    config: ModelConfig,
    path: string,
  ) => { readonly architecture: string; readonly fields: Readonly<Record<string, GgufField | null>> };
  readonly targets: (config: ModelConfig, path: string) => { readonly layer: GgufTargets; readonly model: GgufTargets };
  readonly factors: (config: ModelConfig, path: string) => Readonly<Record<string, Float32Array>>;
  /** What llama.cpp does otherwise than the file says, a sentence each. */
  readonly notes: (config: ModelConfig, path: string) => readonly string[];
  /** Tensors of zeros that llama.cpp asks for. */
  readonly unread: (config: ModelConfig, path: string) => readonly StoredPiece[];
  /** Tensors beside which llama.cpp looks for no adapter's pair; null where there are none. */
  readonly unpaired: (config: ModelConfig, path: string) => RegExp | null;
  /** Tensors that nobody reads. */
  readonly ignored: RegExp | null;
  /** Whether llama.cpp loads no file without a head. */
  readonly hasOwnHead: boolean;
  /** What the weights of a file hold beyond its metadata; null where nothing. */
  readonly folded: string | null;
}

/** A model family: how its config.json is read, and what its checkpoints call the tensors. */
export interface Family {
  readonly className: string;
  readonly ignored: RegExp | null;
  /** Tensors of what is no text model, a vision tower: skipped with a word. */
  readonly foreign: RegExp | null;
  readonly prefixes: readonly (readonly [stored: string, own: string])[];
  /** Fields that are floats in Python. */
  readonly floats: ReadonlySet<string>;
  /** Null for a family that llama.cpp does not have. */
  readonly gguf: FamilyGguf | null;
  /** Throws CheckpointError naming the fields that are wrong. `type` is the `model_type` that the family stands under. */
  readonly read: (json: Readonly<Record<string, unknown>>, path: string, type: string) => ReadConfig;
}

/** A family from its description. */
export function defineFamily<F extends Fields>(description: FamilyDescription<F>): Family {
  const { className, rules = [], otherNames = {}, ignored = null, foreign = null, prefixes = [], remarks = [], endTokens } = description;
  const fields: Fields = { per_layer_config: noLayerFields, ...description.fields };
  const schema = z.object(fields).check(...rules.map((problem) => rule<unknown>((values) => problem(values as Checked<F>))));
  const known = new Set([...Object.keys(fields), ...Object.keys(otherNames), ...inert, ...remarks]);
  const valuesOf = (json: Readonly<Record<string, unknown>>, path: string): Checked<F> =>
    checked(schema as unknown as z.ZodMiniType<Checked<F>, unknown>, renamed(json, otherNames), path);
  return {
    className,
    ignored,
    foreign,
    prefixes,
    floats: new Set(Object.entries(fields).flatMap(([name, check]) => (isFloatField(check) ? [name] : []))),
    gguf: description.gguf ? ggufOf(description.gguf, valuesOf) : null,
    read: (json, path, type) => {
      const values = valuesOf(json, path);
      // Only looked at: what the file does not say is not added.
      const added = Object.entries(values).filter(([name, value]) => !(name === "eos_token_id" || (value === null && !(name in json))));
      return {
        config: {
          ...json,
          ...(endTokens && { eos_token_id: json["eos_token_id"] ?? endTokens }),
          ...Object.fromEntries(added),
          model_type: type,
        } as unknown as ModelConfig,
        options: description.decoder(values, path),
        unknown: [...Object.keys(json).filter((name) => !known.has(name)), ...unreadRope(json)],
      };
    },
  };
}

/** Fields by their own names; what a file says under others stays beside them, so that it is saved as it was. */
function renamed(json: Readonly<Record<string, unknown>>, names: Readonly<Record<string, string>>): Readonly<Record<string, unknown>> {
  const others = Object.entries(names).filter(([name]) => json[name] != null);
  return others.length === 0 ? json : { ...json, ...Object.fromEntries(others.map(([name, own]) => [own, json[name]])) };
}

/** Fields of several keys; those of the rotary embedding stand together. */
function mergedFields(parts: readonly Readonly<Record<string, unknown>>[]): Readonly<Record<string, unknown>> {
  const rotary = Object.assign({}, ...parts.map((part) => part["rope_parameters"])) as object;
  return Object.assign({}, ...parts, Object.keys(rotary).length > 0 ? { rope_parameters: rotary } : {}) as Readonly<
    Record<string, unknown>
  >;
}

function ggufOf<Config>(
  { architecture, architectures, isOurs, keys, layer, model, refuses, notes, unread, ...rest }: GgufDescription<Config>,
  valuesOf: (config: ModelConfig, path: string) => Config,
): FamilyGguf {
  return {
    architectures: architectures ?? (typeof architecture === "string" ? [architecture] : []),
    isOurs: (file) => isOurs?.(file) ?? true,
    ignored: rest.ignored ?? null,
    hasOwnHead: rest.hasOwnHead ?? false,
    folded: rest.folded ?? null,
    unpaired: () => rest.unpaired ?? null,
    unread: (config, path) => unread?.(valuesOf(config, path)) ?? [],
    read: (file) => mergedFields(keys.map((key) => key.read(file))),
    write: (config, path) => {
      const values = valuesOf(config, path);
      const [problem] = [refuses, ...keys.map((key) => key.refuses)].flatMap((says) => says?.(values) ?? []);
      if (problem !== undefined) throw new CheckpointError(`${path}: no GGUF file can say that ${problem}. Save it as safetensors.`, path);
      return {
        architecture: typeof architecture === "string" ? architecture : architecture(values),
        fields: Object.assign({}, ...keys.map((key) => key.write(values))) as Readonly<Record<string, GgufField | null>>,
      };
    },
    notes: (config, path) => {
      const values = valuesOf(config, path);
      return [notes, ...keys.map((key) => key.notes)].flatMap((says) => says?.(values) ?? []);
    },
    targets: (config, path) => {
      const values = valuesOf(config, path);
      return { layer: layer(values), model: model?.(values) ?? {} };
    },
    factors: (config, path) => {
      const values = valuesOf(config, path);
      return Object.assign({}, ...keys.map((key) => key.factors?.(values))) as Readonly<Record<string, Float32Array>>;
    },
  };
}

/** The parameters of a model by the checkpoint's names; nothing is allocated on the device. */
export function parametersIn({ config, options }: ReadConfig, device: Device): Map<string, ParameterSpec> {
  return parametersOf(device, (weights) => new Decoder(weights, config, options));
}

/** The model of these tensors, named as `parametersIn` names them. */
export function decoderOf({ config, options }: ReadConfig, tensors: ReadonlyMap<string, Tensor>): Decoder {
  return assembled(tensors, (weights) => new Decoder(weights, config, options));
}
