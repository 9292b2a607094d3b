import { nn } from "@lowrank/autograd";
import type { Device, Tensor } from "@lowrank/tensor";
import { activations } from "../activation.js";
import { attend } from "../attend.js";
import {
  type AttentionContext,
  attentionContext,
  type BlockNames,
  type CacheShape,
  type CausalLM,
  causalLoss,
  checkIds,
  type ForwardOptions,
  joinHeads,
  longestRow,
  type ModelOrigin,
  positionsOf,
  splitHeads,
  withPrompt,
} from "../causal-lm.js";
import { endTokens } from "../config.js";
import type { BatchLayout } from "../data/batches.js";
import { bestLayout } from "../packed-rows.js";
import { normal, ones, type ParameterInit, type ParameterSpec, Weights, zeros } from "../parameters.js";
import { VirtualTokens } from "../virtual-tokens.js";
import type { Gpt2Config } from "./config.js";

/** Every parameter of a GPT-2 of these sizes, by checkpoint name. */
export function gpt2Parameters(config: Gpt2Config): Map<string, ParameterSpec> {
  const { n_embd: width, vocab_size: vocab } = config;
  const inner = config.n_inner ?? 4 * width;
  // Residual projections start smaller, by 1/√(2 · layers) (Radford et al. 2019, section 2.3).
  const residual: ParameterInit = { kind: "normal", scale: 1 / Math.sqrt(2 * config.n_layer) };
  const specs = new Map<string, ParameterSpec>();
  const add = (name: string, shape: readonly number[], init: ParameterInit): void => void specs.set(name, { shape, init });
  add("transformer.wte.weight", [vocab, width], normal);
  add("transformer.wpe.weight", [config.n_positions, width], normal);
  for (let layer = 0; layer < config.n_layer; layer++) {
    const at = (name: string): string => `transformer.h.${layer}.${name}`;
    const linear = (name: string, inputs: number, outputs: number, init: ParameterInit): void => {
      add(at(`${name}.weight`), [inputs, outputs], init);
      add(at(`${name}.bias`), [outputs], zeros);
    };
    add(at("ln_1.weight"), [width], ones);
    add(at("ln_1.bias"), [width], zeros);
    linear("attn.c_attn", width, 3 * width, normal);
    linear("attn.c_proj", width, width, residual);
    add(at("ln_2.weight"), [width], ones);
    add(at("ln_2.bias"), [width], zeros);
    linear("mlp.c_fc", width, inner, normal);
    linear("mlp.c_proj", inner, width, residual);
  }
  add("transformer.ln_f.weight", [width], ones);
  add("transformer.ln_f.bias", [width], zeros);
  if (!config.tie_word_embeddings) add("lm_head.weight", [vocab, width], normal);
  return specs;
}

/** transformers' Conv1D: a linear layer whose weight is [in, out]. */
function conv1d(weights: Weights): nn.Linear {
  return new nn.Linear(weights.get("weight"), weights.get("bias"), { isTransposed: true });
}

function layerNorm(weights: Weights, eps: number): nn.LayerNorm {
  return new nn.LayerNorm(weights.get("weight"), weights.get("bias"), eps);
}

/** Multi-head causal self-attention; queries, keys and values come from one matrix. */
export class Gpt2Attention extends nn.Module {
  readonly c_attn: nn.Linear;
  readonly c_proj: nn.Linear;
  readonly #heads: number;
  readonly #scale: number;

  constructor(
    weights: Weights,
    config: Gpt2Config,
    readonly layer: number,
  ) {
    super();
    this.c_attn = conv1d(weights.at("c_attn"));
    this.c_proj = conv1d(weights.at("c_proj"));
    this.#heads = config.n_head;
    const headDim = config.n_embd / config.n_head;
    this.#scale = (config.scale_attn_weights ? 1 / Math.sqrt(headDim) : 1) / (config.scale_attn_by_inverse_layer_idx ? layer + 1 : 1);
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, context: AttentionContext): Tensor {
    return this.through(x, (input) => {
      const [queries, keys, values] = this.c_attn
        .forward(input)
        .split(3, -1)
        .map((part) => splitHeads(part, this.#heads)) as [Tensor, Tensor, Tensor];
      return this.c_proj.forward(joinHeads(attend(queries, keys, values, this.layer, this.#scale, context)));
    });
  }
}

/** The feed-forward layer: widen, bend, narrow. */
export class Gpt2Mlp extends nn.Module {
  readonly c_fc: nn.Linear;
  readonly c_proj: nn.Linear;
  readonly #activation: (x: Tensor) => Tensor;

  constructor(weights: Weights, config: Gpt2Config) {
    super();
    this.c_fc = conv1d(weights.at("c_fc"));
    this.c_proj = conv1d(weights.at("c_proj"));
    this.#activation = activations[config.activation_function];
  }

  /** [..., width] → the same shape. */
  forward(x: Tensor): Tensor {
    return this.through(x, (input) => this.c_proj.forward(this.#activation(this.c_fc.forward(input))));
  }
}

/** A transformer block, norms in front. */
export class Gpt2Block extends nn.Module {
  readonly ln_1: nn.LayerNorm;
  readonly attn: Gpt2Attention;
  readonly ln_2: nn.LayerNorm;
  readonly mlp: Gpt2Mlp;

  constructor(weights: Weights, config: Gpt2Config, layer: number) {
    super();
    this.ln_1 = layerNorm(weights.at("ln_1"), config.layer_norm_epsilon);
    this.attn = new Gpt2Attention(weights.at("attn"), config, layer);
    this.ln_2 = layerNorm(weights.at("ln_2"), config.layer_norm_epsilon);
    this.mlp = new Gpt2Mlp(weights.at("mlp"), config);
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, context: AttentionContext): Tensor {
    return this.through(x, (input) => {
      const attended = input.add(this.attn.forward(this.ln_1.forward(input), context));
      return attended.add(this.mlp.forward(this.ln_2.forward(attended)));
    });
  }
}

/** Embeddings, blocks and the last norm. */
export class Gpt2Transformer extends nn.Module {
  readonly wte: nn.Embedding;
  readonly wpe: nn.Embedding;
  readonly h: readonly Gpt2Block[];
  readonly ln_f: nn.LayerNorm;

  constructor(weights: Weights, config: Gpt2Config) {
    super();
    this.wte = new nn.Embedding(weights.get("wte.weight"));
    this.wpe = new nn.Embedding(weights.get("wpe.weight"));
    this.h = Array.from({ length: config.n_layer }, (_, layer) => new Gpt2Block(weights.at(`h.${layer}`), config, layer));
    this.ln_f = layerNorm(weights.at("ln_f"), config.layer_norm_epsilon);
  }

  /** ids i32 [batch, seq] → [batch, seq, width]. */
  forward(ids: Tensor, context: AttentionContext): Tensor {
    const embedded = withPrompt(this.wte.forward(ids), context);
    const [batch = 0, length = 0] = embedded.shape;
    if (!context.cache) longestRow(length, context, this.wpe.weight.shape[0] ?? 0);
    const positions = positionsOf(batch, length, context, ids.device);
    let x = embedded.add(this.wpe.forward(positions));
    for (const block of this.h) x = block.forward(x, context);
    return this.ln_f.forward(x);
  }
}

/** GPT-2 (Radford et al. 2019), as transformers' GPT2LMHeadModel in evaluation: dropout of the base is not applied. */
export class Gpt2 extends nn.Module implements CausalLM {
  readonly transformer: Gpt2Transformer;
  readonly lm_head: nn.Linear;
  readonly device: Device;
  readonly virtualTokens: VirtualTokens = new VirtualTokens();
  stopTokens: readonly number[];
  origin: ModelOrigin | null = null;

  /** From tensors named as `gpt2Parameters` names them. */
  constructor(
    readonly config: Gpt2Config,
    tensors: ReadonlyMap<string, Tensor>,
  ) {
    super();
    const weights = new Weights(tensors);
    this.transformer = new Gpt2Transformer(weights.at("transformer"), config);
    const embedding = this.transformer.wte.weight;
    this.lm_head = new nn.Linear(config.tie_word_embeddings ? embedding : weights.get("lm_head.weight"));
    this.device = embedding.device;
    this.stopTokens = endTokens(config.eos_token_id);
  }

  get vocabSize(): number {
    return this.config.vocab_size;
  }

  get contextLength(): number {
    return this.config.n_positions;
  }

  get cacheShape(): CacheShape {
    const { n_layer: layers, n_head: kvHeads, n_embd: width } = this.config;
    return { layers, kvHeads, headDim: width / kvHeads };
  }

  get batchLayout(): BatchLayout {
    return bestLayout(this);
  }

  get blocks(): readonly BlockNames[] {
    return this.transformer.h.map((_, layer) => {
      const name = `transformer.h.${layer}`;
      return { name, attentionNorm: `${name}.ln_1`, attention: `${name}.attn`, mlpNorm: `${name}.ln_2`, mlp: `${name}.mlp` };
    });
  }

  hidden(ids: Tensor, options: ForwardOptions = {}): Tensor {
    this.checkAlive(ids);
    checkIds(ids);
    return this.transformer.forward(ids, attentionContext(this.virtualTokens, options));
  }

  forward(ids: Tensor, options: ForwardOptions = {}): Tensor {
    return this.lm_head.forward(this.hidden(ids, options));
  }

  loss(ids: Tensor, labels: Tensor, { packed = null }: Pick<ForwardOptions, "packed"> = {}): Tensor {
    return causalLoss(this.hidden(ids, { packed }), this.lm_head, labels, packed);
  }
}
