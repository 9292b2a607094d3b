import type { Device, DType, SafetensorsEntry, SafetensorsFile, Shape, Tensor } from "@lowrank/tensor";

/**
 * A weight of a checkpoint, however it is stored. A new way to store weights is a class of these, and a `WeightSource` that finds them; loading,
 * what config.json says against what is there, digests and errors follow.
 */
export interface StoredWeight {
  /** The file that holds it, and its name there: for errors. */
  readonly file: string;
  readonly name: string;
  /** The shape of its numbers. */
  readonly shape: Shape;
  /** The dtype that its numbers have as they are loaded, or have once they leave their blocks. */
  readonly dtype: DType;
  /** How its numbers lie in blocks; null where each stands alone. */
  readonly layout: BlockLayout | null;
  /** Why it cannot be a weight, as the part of a sentence; null where it can. */
  readonly problem: string | null;
  /**
   * A parameter of the numbers of some pieces one after another, of which this is the first. All are of one layout, or all without one: then in
   * `dtype`. Gives the digest of each piece too. Rejects with CheckpointError where the contents are damaged.
   */
  load(pieces: readonly StoredWeight[], shape: Shape, options: { readonly device: Device; readonly dtype: DType }): Promise<LoadedPieces>;
  /**
   * Gives its numbers on in order, as f32, some at a time, which are the taker's until it returns; and their digest. Of weights whose numbers stand alone. Rejects as
   * `load` does.
   */
  numbers?(take: (values: Float32Array) => void): Promise<string>;
  /** The digest that `load` gives, without loading. */
  digest(): Promise<string>;
}

/** How numbers lie in blocks. */
export interface BlockLayout {
  /** The type of the blocks, for people: nf4, Q4_K, … */
  readonly type: string;
  /** What has to agree for several weights to be put into one. */
  readonly key: string;
}

/** A parameter, and the digest of each piece of it. */
export interface LoadedPieces {
  readonly tensor: Tensor;
  readonly digests: readonly string[];
}

/** What a checkpoint holds, by the names that the model has for it. */
export interface StoredTensors {
  /** `readWeights` may put one under another name. */
  readonly weights: Map<string, StoredWeight>;
  /** What is there more than once with other contents, as parts of a sentence. */
  readonly repeated: readonly string[];
  /** The tensors of what is no text model. */
  readonly foreign: readonly string[];
  /** What is unusual about them, a sentence each. */
  readonly notes?: readonly string[];
  /** The tensors of safetensors files that weights in blocks are made of. */
  readonly parts?: ReadonlyMap<string, readonly Place[]>;
}

/** Where the weights of a model are read from: a folder of safetensors files, a GGUF file. */
export interface WeightSource {
  /** What errors call it, and the file in which the config stands. */
  readonly name: string;
  readonly configPath: string;
  /** How many tensors it has. */
  readonly count: number;
  /** What it holds. `known`: the names that the model may ask for. Rejects with CheckpointError for what is damaged. */
  stored(known: ReadonlySet<string>): Promise<StoredTensors>;
  close(): Promise<void>;
}

/** Where a tensor lies: its file, and its name there. */
export interface Place {
  readonly file: SafetensorsFile;
  readonly name: string;
}

export function entryOf({ file, name }: Place): SafetensorsEntry {
  return file.entries.get(name) as SafetensorsEntry; // it was found there
}
