import type { Shape } from "@lowrank/tensor";
import type { StoredPiece } from "../../parameters.js";
import type { GgufChange } from "./change.js";
import type { GgufReader } from "./facts.js";

/** A value of the metadata, with the type that llama.cpp's converter writes it in. */
export type GgufField =
  | { readonly type: "u32" | "f32"; readonly value: number }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "i32[]" | "f32[]"; readonly value: readonly number[] }
  | { readonly type: "bool[]"; readonly value: readonly boolean[] };

type Json = Readonly<Record<string, unknown>>;

/** A part of a config both ways. */
export interface GgufKey<Config = Json> {
  /** Fields of a config.json; what is undefined is left out. */
  readonly read: (file: GgufReader) => Json;
  /** Values of the metadata, by keys below the architecture's name; what is null is left out. */
  readonly write: (config: Config) => Readonly<Record<string, GgufField | null>>;
  /** Vectors that the converter makes of a config and files as tensors, by name. */
  readonly factors?: (config: Config) => Readonly<Record<string, Float32Array>>;
  /** What no file can say of a config: a sentence's end, or null. */
  readonly refuses?: (config: Config) => string | null;
  /** What a file says and llama.cpp does otherwise: a sentence, or null. Each was found by computing both (`scripts/compare-exports.mjs`). */
  readonly notes?: (config: Config) => string | null;
}

/** A parameter that a target is asked for. */
export interface GgufParameter {
  readonly shape: Shape;
  /** What its name ends with, "weight" or "bias". */
  readonly suffix: string;
  readonly layer: number;
}

/** The tensors that hold a parameter, named from the layer on. */
export interface GgufTensors {
  readonly tensors: readonly StoredPiece[];
  readonly changes?: readonly GgufChange[];
  /** True where further parameters lie in the same tensor, behind one another in the order that the model has them in. */
  readonly isShared?: boolean;
  /** Other tensors that hold the same, taken where a file has these. */
  readonly instead?: GgufTensors;
}

/** What a file calls a module, the rest of its parameters' names being the same; or the tensors of one of its parameters. */
export type GgufTarget = string | ((parameter: GgufParameter) => GgufTensors);

/** Tensors by the names of modules or parameters, from the layer on; `*` stands for a number, the parameters of which lie in one tensor. */
export type GgufTargets = Readonly<Record<string, GgufTarget>>;

/** A family as llama.cpp's converter writes it. */
export interface GgufDescription<Config = Json> {
  /** The name under `general.architecture`; of a config where it is one of several. */
  readonly architecture: string | ((config: Config) => string);
  /** All names, where there are several. */
  readonly architectures?: readonly string[];
  /** False for a file of the same architecture that is another family's. */
  readonly isOurs?: (file: GgufReader) => boolean;
  readonly keys: readonly GgufKey<Config>[];
  /** Of each layer, by names from the layer on. */
  readonly layer: (config: Config) => GgufTargets;
  /** Of the rest, by names from the layers' parent on; "embedding", "norm" and "head" of those that every model has, where they are changed. */
  readonly model?: (config: Config) => GgufTargets;
  /** Tensors that llama.cpp asks for and no parameter stands for, by their whole names: zeros. */
  readonly unread?: (config: Config) => readonly StoredPiece[];
  /** True where llama.cpp loads no file without a head: one that shares the embedding's weight is filed as well. */
  readonly hasOwnHead?: boolean;
  /** What the weights of a file hold already and its metadata does not say, so that an adapter of the folder does not fit them: a sentence, or absent. */
  readonly folded?: string;
  /** Tensors beside which llama.cpp looks for no adapter's pair, without a word: its graph multiplies by them alone. Found by computing both. */
  readonly unpaired?: RegExp;
  /** Tensors that a file may have and nobody reads. */
  readonly ignored?: RegExp;
  /** As a key's: what llama.cpp would compute otherwise. */
  readonly refuses?: (config: Config) => string | null;
  /** As a key's. */
  readonly notes?: (config: Config) => string | null;
}
