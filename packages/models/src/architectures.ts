import { CheckpointError, type Tensor } from "@lowrank/tensor";
import type { CausalLM } from "./causal-lm.js";
import type { ModelConfig } from "./config.js";
import { type Gpt2Config, gpt2Config } from "./gpt2/config.js";
import { Gpt2, gpt2Parameters } from "./gpt2/model.js";
import { type LlamaConfig, llamaConfig } from "./llama/config.js";
import { Llama, llamaParameters } from "./llama/model.js";
import type { ParameterSpec } from "./parameters.js";

/** A model family: how its config is read, which parameters it has, and how a model is made of them. */
interface Architecture {
  /** The class in `architectures` of config.json. */
  readonly className: string;
  /** The part in front of the names that some checkpoints leave out: saved from the bare model, without the head. */
  readonly prefix: string;
  /** Tensors that old checkpoints hold and that are no parameters. */
  readonly ignored: RegExp;
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
    parameters: (config) => gpt2Parameters(config as Gpt2Config),
    build: (config, tensors) => new Gpt2(config as Gpt2Config, tensors),
  },
  llama: {
    className: "LlamaForCausalLM",
    prefix: "model.",
    ignored: /\.rotary_emb\.inv_freq$/,
    config: llamaConfig,
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
    const name = [JSON.stringify(type), ...names.map(String)].join(" / ");
    throw new CheckpointError(`${path}: the architecture ${name} is not supported. Use a checkpoint of ${supported}.`, path);
  }
  return found;
}

export type { Architecture };
