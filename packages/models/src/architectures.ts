import { CheckpointError, largest, type Tensor } from "@lowrank/tensor";
import type { CausalLM } from "./causal-lm.js";
import type { ModelConfig } from "./config.js";
import { type Gpt2Config, gpt2Config } from "./gpt2/config.js";
import { Gpt2, gpt2Parameters } from "./gpt2/model.js";
import { type LlamaConfig, llamaConfig } from "./llama/config.js";
import { Llama, llamaParameters } from "./llama/model.js";
import type { ParameterSpec } from "./parameters.js";
import { shown } from "./schema.js";

/** A model family: how its config is read, which parameters it has, and how a model is made of them. */
interface Architecture {
  /** The class in `architectures` of config.json. */
  readonly className: string;
  /** The part in front of the names that some checkpoints leave out: saved from the bare model, without the head. */
  readonly prefix: string;
  /** Tensors that old checkpoints hold and that are no parameters. */
  readonly ignored: RegExp;
  /** How often the parameters of a layer repeat: what bounds their number before they are listed. */
  readonly layers: (config: ModelConfig) => number;
  readonly config: (json: Readonly<Record<string, unknown>>, path: string) => ModelConfig;
  readonly parameters: (config: ModelConfig) => Map<string, ParameterSpec>;
  readonly build: (config: ModelConfig, tensors: ReadonlyMap<string, Tensor>) => CausalLM;
}

/** By `model_type` of config.json. */
const architectures: Readonly<Record<string, Architecture>> = {
  gpt2: {
    className: "GPT2LMHeadModel",
    prefix: "transformer.",
    ignored: /(^|\.)h\.\d+\.attn\.(bias|masked_bias)$/,
    config: gpt2Config,
    layers: (config) => (config as Gpt2Config).n_layer,
    parameters: (config) => gpt2Parameters(config as Gpt2Config),
    build: (config, tensors) => new Gpt2(config as Gpt2Config, tensors),
  },
  llama: {
    className: "LlamaForCausalLM",
    prefix: "model.",
    ignored: /\.rotary_emb\.inv_freq$/,
    config: llamaConfig,
    layers: (config) => (config as LlamaConfig).num_hidden_layers,
    parameters: (config) => llamaParameters(config as LlamaConfig),
    build: (config, tensors) => new Llama(config as LlamaConfig, tensors),
  },
};

/** The family of a config.json. Throws CheckpointError naming the one that is not supported, and those that are. */
export function architectureOf(json: Readonly<Record<string, unknown>>, path: string): Architecture {
  const type = json["model_type"];
  const names = Array.isArray(json["architectures"]) ? json["architectures"] : [];
  const found = typeof type === "string" && Object.hasOwn(architectures, type) ? architectures[type] : undefined;
  const supported = Object.entries(architectures)
    .map(([key, { className }]) => `${key} (${className})`)
    .join(", ");
  if (type === undefined)
    throw new CheckpointError(`${path}: "model_type" is missing. It names the architecture; supported are ${supported}.`, path);
  if (!found) {
    const name = [shown(type), ...names.slice(0, 3).map((item) => (typeof item === "string" ? item : shown(item)))].join(" / ");
    throw new CheckpointError(`${path}: the architecture ${name} is not supported. Use a checkpoint of ${supported}.`, path);
  }
  return found;
}

/** Layers, numbers and numbers along an axis that a model may have of which there are no tensors; the largest models published have some hundred and 10^12. */
const most = { layers: 4096, numbers: 1e14, axis: 2 ** 24 };

/**
 * The parameters of a config that no tensors stand beside: for planning, and for models that begin with random weights.
 * Throws CheckpointError for sizes far above any model's, before anything of that size is made.
 */
export function boundedParameters(architecture: Architecture, config: ModelConfig, path: string): Map<string, ParameterSpec> {
  const tooLarge = (fact: string): CheckpointError =>
    new CheckpointError(`${path}: ${fact}, which no model has. Correct the sizes in the file or fetch it again.`, path);
  const layers = architecture.layers(config);
  if (layers > most.layers) throw tooLarge(`it asks for ${layers} layers`);
  const parameters = architecture.parameters(config);
  let numbers = 0;
  for (const [name, { shape }] of parameters) {
    const longest = largest(shape);
    if (longest > most.axis) throw tooLarge(`it asks for ${name} of ${shape.join(" x ")} numbers`);
    numbers += shape.reduce((product, size) => product * size, 1);
  }
  if (numbers > most.numbers) throw tooLarge(`it asks for ${numbers.toPrecision(3)} parameters`);
  return parameters;
}

export type { Architecture };
