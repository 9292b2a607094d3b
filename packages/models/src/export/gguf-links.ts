import type { Tensor } from "@lowrank/tensor";
import type { CausalLM } from "../causal-lm.js";
import type { GgufLink } from "../families/gguf/change.js";
import { ggufLinks } from "../families/gguf-model.js";
import { type FamilyConfig, readFamily } from "../families/read.js";

/** A model's parameters beside the tensors of the GGUF file that is written of it. */
export interface FiledModel {
  readonly read: FamilyConfig;
  readonly links: readonly GgufLink[];
  /** Parameters by the names that the links have for them. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  /** What the links call one of the model's parameters. */
  readonly nameOf: (name: string) => string;
}

/**
 * Where the parameters of a model lie in a GGUF file; `changed`: those that stand in place of its own, by name, or are there as well, as the head of tied
 * embeddings that part. A text model inside a larger one has the names of the text model alone. Throws CheckpointError as `ggufLinks` does.
 */
export function filedModel(model: CausalLM, path: string, changed: ReadonlyMap<string, Tensor> = new Map()): FiledModel {
  const own = model.namedParameters();
  const isParted = [...changed.keys()].some((name) => !own.has(name));
  const read = readFamily({ ...model.config, ...(isParted && { tie_word_embeddings: false }) }, path);
  const isInside = !own.has(`${read.options.embedding.name}.weight`);
  const nameOf = (name: string): string => (isInside ? model.savedAs(name).name : name);
  const parameters = new Map([...own, ...changed].map(([name, tensor]) => [nameOf(name), tensor]));
  return { read, links: ggufLinks(read, parameters, path), parameters, nameOf };
}
