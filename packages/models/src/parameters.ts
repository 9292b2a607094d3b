import { nn } from "@lowrank/autograd";
import { CheckpointError, type Device, fromStorage, type Shape, Storage, showValue, sizeOf, type Tensor } from "@lowrank/tensor";

/** How a parameter starts when a model is trained from nothing; normal has the config's `initializer_range`, times `scale`. */
export type ParameterInit = { readonly kind: "zeros" | "ones" } | { readonly kind: "normal"; readonly scale: number };

/** A parameter that an architecture needs. */
export interface ParameterSpec {
  readonly shape: Shape;
  readonly init: ParameterInit;
  /** The tensors whose contents one after another are the parameter's, where checkpoints hold these instead of it. */
  readonly pieces?: readonly StoredPiece[];
  /** It is the weight of a dense layer, [in, out] and not [out, in]. */
  readonly isTransposed?: boolean;
  /** It is the weight of products, a dense layer's or experts', which may be quantized while it is loaded. */
  readonly isProduct?: boolean;
}

/** A tensor of a checkpoint that is a parameter, or a piece of one. */
export interface StoredPiece {
  readonly name: string;
  readonly shape: Shape;
}

export const zeros: ParameterInit = { kind: "zeros" };
export const ones: ParameterInit = { kind: "ones" };
export const normal: ParameterInit = { kind: "normal", scale: 1 };

/** What a dense layer may have besides its sizes. */
export interface DenseOptions {
  readonly bias?: boolean;
  /** The weight is [in, out], as transformers' Conv1D has it. */
  readonly isTransposed?: boolean;
  readonly init?: ParameterInit;
  /** What it computes where it is several projections in one. */
  readonly parts?: readonly nn.FusedPart[];
}

/** Where the tensors of a model come from while it is put together, and what it is made of. */
interface Assembly {
  readonly take: (name: string, spec: ParameterSpec) => Tensor;
  readonly modules: Map<string, nn.Module>;
  /** Of the parameters that checkpoints hold in pieces. */
  readonly pieces: Map<string, readonly StoredPiece[]>;
}

/**
 * Tensors by checkpoint name, taken while a model is put together. A part says the shape and the initialization of each parameter where it
 * takes it, and nowhere else: `parametersOf` collects them. Modules stand below the model under the names at which they were made.
 */
export class Weights {
  constructor(
    private readonly assembly: Assembly,
    private readonly path: string = "",
  ) {}

  /** The tensors below a dotted name. */
  at(name: string): Weights {
    return new Weights(this.assembly, this.#full(name));
  }

  /**
   * A parameter of the module that is being made: keep it as a property of this name. `pieces`: what checkpoints hold instead, by names from
   * here on, or from one level above with `../`. `isProduct`: it is the weight of one. Throws CheckpointError when there is none.
   */
  tensor(name: string, shape: Shape, init: ParameterInit = normal, pieces: readonly StoredPiece[] = [], isProduct = false): Tensor {
    const own = pieces.map((piece) => ({ ...piece, name: this.#stored(piece.name) }));
    if (own.length > 0) this.assembly.pieces.set(this.#full(name), own);
    return this.#taken(name, { shape, init, ...(own.length > 0 && { pieces: own }), ...(isProduct && { isProduct }) });
  }

  #taken(name: string, spec: ParameterSpec): Tensor {
    return nn.parameter(this.assembly.take(this.#full(name), spec));
  }

  /** A module below this name, which is made of the weights there. */
  module<M extends nn.Module>(name: string, make: (weights: Weights) => M): M {
    const module = make(this.at(name));
    this.assembly.modules.set(this.#full(name), module);
    return module;
  }

  /** y = x Wᵀ + b. */
  dense(name: string, inFeatures: number, outFeatures: number, options: DenseOptions = {}): nn.Linear {
    const { bias = false, isTransposed = false, init = normal, parts } = options;
    const shape = isTransposed ? [inFeatures, outFeatures] : [outFeatures, inFeatures];
    return this.module(name, (weights) => {
      const weight = weights.#taken("weight", { shape, init, isProduct: true, ...(isTransposed && { isTransposed }) });
      return new nn.Linear(weight, bias ? weights.tensor("bias", [outFeatures], zeros) : null, {
        isTransposed,
        ...(parts && { fusedParts: parts }),
      });
    });
  }

  embedding(name: string, count: number, width: number): nn.Embedding {
    return this.module(name, (weights) => new nn.Embedding(weights.tensor("weight", [count, width])));
  }

  /** The pieces in which checkpoints hold parameters, by the parameters' names: of those that were taken so far, and of later ones. */
  get pieces(): ReadonlyMap<string, readonly StoredPiece[]> {
    return this.assembly.pieces;
  }

  #stored(name: string): string {
    return name.startsWith("../") ? `${this.path.slice(0, this.path.lastIndexOf("."))}.${name.slice(3)}` : this.#full(name);
  }

  #full(name: string): string {
    return this.path === "" ? name : `${this.path}.${name}`;
  }
}

/** A module that only holds others. */
class Group extends nn.Module {}

/**
 * Makes a model: `root` with everything that `make` takes of the weights below it, under the checkpoint's names. Throws CheckpointError for a
 * tensor that is missing.
 */
export function assembled<M extends nn.Module>(tensors: ReadonlyMap<string, Tensor>, make: (weights: Weights) => M): M {
  return assemble((name) => {
    const found = tensors.get(name);
    if (!found) throw new CheckpointError(`The tensor "${name}" is missing. Fetch the checkpoint again.`, name);
    return found;
  }, make);
}

/** The parameters that `make` takes, by name, in its order; nothing is allocated on the device. */
export function parametersOf(device: Device, make: (weights: Weights) => nn.Module): Map<string, ParameterSpec> {
  const specs = new Map<string, ParameterSpec>();
  assemble((name, spec) => {
    specs.set(name, spec);
    return fromStorage(new Storage(device, "f32", sizeOf(spec.shape)), spec.shape);
  }, make);
  return specs;
}

function assemble<M extends nn.Module>(take: Assembly["take"], make: (weights: Weights) => M): M {
  const modules = new Map<string, nn.Module>();
  const root = make(new Weights({ take, modules, pieces: new Map() }));
  const nodes = new Map<string, nn.Module>([["", root]]);
  const nodeAt = (path: string): nn.Module => {
    const known = nodes.get(path);
    if (known) return known;
    const node = modules.get(path) ?? new Group();
    nodes.set(path, node);
    const dot = path.lastIndexOf(".");
    const parent = nodeAt(path.slice(0, Math.max(dot, 0)));
    Reflect.defineProperty(parent, path.slice(dot + 1), { value: node, enumerable: true });
    return node;
  };
  for (const path of modules.keys()) nodeAt(path);
  return root;
}

/** Throws CheckpointError for a dtype, or another choice, that weights cannot be stored as. `what` names the call. */
export function checkWeightDType(dtype: string, choices: readonly string[], what: string): void {
  if (choices.includes(dtype)) return;
  throw new CheckpointError(
    `${what}: weights cannot be stored as ${showValue(dtype)}. Choose a \`dtype\` among ${choices.join(", ")}.`,
    what,
  );
}
