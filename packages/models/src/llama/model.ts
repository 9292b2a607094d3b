import { nn } from "@lowrank/autograd";
import { type Device, rope, type Tensor } from "@lowrank/tensor";
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
import { type LlamaConfig, ropeOf } from "./config.js";
import { RotaryTable } from "./rope.js";

/** Every parameter of a Llama of these sizes, by checkpoint name. */
export function llamaParameters(config: LlamaConfig): Map<string, ParameterSpec> {
  const { hidden_size: width, intermediate_size: inner, head_dim: headDim, vocab_size: vocab } = config;
  const specs = new Map<string, ParameterSpec>();
  const add = (name: string, shape: readonly number[], init: ParameterInit): void => void specs.set(name, { shape, init });
  add("model.embed_tokens.weight", [vocab, width], normal);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const linear = (name: string, inputs: number, outputs: number, hasBias: boolean): void => {
      add(`model.layers.${layer}.${name}.weight`, [outputs, inputs], normal);
      if (hasBias) add(`model.layers.${layer}.${name}.bias`, [outputs], zeros);
    };
    const attention = config.num_attention_heads * headDim;
    const keys = config.num_key_value_heads * headDim;
    linear("self_attn.q_proj", width, attention, config.attention_bias);
    linear("self_attn.k_proj", width, keys, config.attention_bias);
    linear("self_attn.v_proj", width, keys, config.attention_bias);
    linear("self_attn.o_proj", attention, width, config.attention_bias);
    linear("mlp.gate_proj", width, inner, config.mlp_bias);
    linear("mlp.up_proj", width, inner, config.mlp_bias);
    linear("mlp.down_proj", inner, width, config.mlp_bias);
    add(`model.layers.${layer}.input_layernorm.weight`, [width], ones);
    add(`model.layers.${layer}.post_attention_layernorm.weight`, [width], ones);
  }
  add("model.norm.weight", [width], ones);
  if (!config.tie_word_embeddings) add("lm_head.weight", [vocab, width], normal);
  return specs;
}

function linear(weights: Weights): nn.Linear {
  return new nn.Linear(weights.get("weight"), weights.optional("bias"));
}

/** What the layers of one forward pass share. */
interface LayerContext extends AttentionContext {
  /** [seq, headDim / 2], or [batch, 1, seq, headDim / 2] behind a cache and of packed rows. */
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** Grouped-query causal self-attention with rotary positions. */
export class LlamaAttention extends nn.Module {
  readonly q_proj: nn.Linear;
  readonly k_proj: nn.Linear;
  readonly v_proj: nn.Linear;
  readonly o_proj: nn.Linear;
  readonly #heads: number;
  readonly #kvHeads: number;
  readonly #scale: number;

  constructor(
    weights: Weights,
    config: LlamaConfig,
    readonly layer: number,
  ) {
    super();
    this.q_proj = linear(weights.at("q_proj"));
    this.k_proj = linear(weights.at("k_proj"));
    this.v_proj = linear(weights.at("v_proj"));
    this.o_proj = linear(weights.at("o_proj"));
    this.#heads = config.num_attention_heads;
    this.#kvHeads = config.num_key_value_heads;
    this.#scale = 1 / Math.sqrt(config.head_dim);
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, context: LayerContext): Tensor {
    return this.through(x, (input) => {
      const queries = rope(splitHeads(this.q_proj.forward(input), this.#heads), context.cos, context.sin);
      const keys = rope(splitHeads(this.k_proj.forward(input), this.#kvHeads), context.cos, context.sin);
      const values = splitHeads(this.v_proj.forward(input), this.#kvHeads);
      return this.o_proj.forward(joinHeads(attend(queries, keys, values, this.layer, this.#scale, context)));
    });
  }
}

/** The gated feed-forward layer (SwiGLU; Shazeer 2020): down(act(gate(x)) · up(x)). */
export class LlamaMlp extends nn.Module {
  readonly gate_proj: nn.Linear;
  readonly up_proj: nn.Linear;
  readonly down_proj: nn.Linear;
  readonly #activation: (x: Tensor) => Tensor;

  constructor(weights: Weights, config: LlamaConfig) {
    super();
    this.gate_proj = linear(weights.at("gate_proj"));
    this.up_proj = linear(weights.at("up_proj"));
    this.down_proj = linear(weights.at("down_proj"));
    this.#activation = activations[config.hidden_act];
  }

  /** [..., width] → the same shape. */
  forward(x: Tensor): Tensor {
    return this.through(x, (input) =>
      this.down_proj.forward(this.#activation(this.gate_proj.forward(input)).mul(this.up_proj.forward(input))),
    );
  }
}

/** A transformer block, norms in front. */
export class LlamaLayer extends nn.Module {
  readonly self_attn: LlamaAttention;
  readonly mlp: LlamaMlp;
  readonly input_layernorm: nn.RMSNorm;
  readonly post_attention_layernorm: nn.RMSNorm;

  constructor(weights: Weights, config: LlamaConfig, layer: number) {
    super();
    this.self_attn = new LlamaAttention(weights.at("self_attn"), config, layer);
    this.mlp = new LlamaMlp(weights.at("mlp"), config);
    this.input_layernorm = new nn.RMSNorm(weights.get("input_layernorm.weight"), config.rms_norm_eps);
    this.post_attention_layernorm = new nn.RMSNorm(weights.get("post_attention_layernorm.weight"), config.rms_norm_eps);
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, context: LayerContext): Tensor {
    return this.through(x, (input) => {
      const attended = input.add(this.self_attn.forward(this.input_layernorm.forward(input), context));
      return attended.add(this.mlp.forward(this.post_attention_layernorm.forward(attended)));
    });
  }
}

/** Embeddings, layers and the last norm. */
export class LlamaDecoder extends nn.Module {
  readonly embed_tokens: nn.Embedding;
  readonly layers: readonly LlamaLayer[];
  readonly norm: nn.RMSNorm;
  readonly #rotary: RotaryTable;

  constructor(
    weights: Weights,
    readonly config: LlamaConfig,
  ) {
    super();
    this.embed_tokens = new nn.Embedding(weights.get("embed_tokens.weight"));
    this.layers = Array.from(
      { length: config.num_hidden_layers },
      (_, layer) => new LlamaLayer(weights.at(`layers.${layer}`), config, layer),
    );
    this.norm = new nn.RMSNorm(weights.get("norm.weight"), config.rms_norm_eps);
    this.#rotary = new RotaryTable(ropeOf(config), config.head_dim, this.embed_tokens.weight.device);
  }

  /** ids i32 [batch, seq] → [batch, seq, width]. */
  forward(ids: Tensor, context: AttentionContext): Tensor {
    let x = withPrompt(this.embed_tokens.forward(ids), context);
    const layerContext = { ...context, ...this.#waves(x, context) };
    for (const layer of this.layers) x = layer.forward(x, layerContext);
    return this.norm.forward(x);
  }

  protected override disposeOthers(): void {
    this.#rotary.dispose();
  }

  #waves(embedded: Tensor, context: AttentionContext): { readonly cos: Tensor; readonly sin: Tensor } {
    const [batch = 0, length = 0] = embedded.shape;
    const { cache, packed, prefix } = context;
    const { max_position_embeddings: most } = this.config;
    const capacity = cache ? Math.min(cache.capacity, most) : longestRow(length, context, most);
    const { cos, sin } = this.#rotary.upTo(capacity);
    if (cache || packed) {
      const positions = positionsOf(batch, length, context, embedded.device);
      const at = (table: Tensor): Tensor => table.gather(positions).reshape([batch, 1, length, this.config.head_dim / 2]);
      return { cos: at(cos), sin: at(sin) };
    }
    const from = prefix?.length ?? 0;
    return { cos: cos.narrow(0, from, length), sin: sin.narrow(0, from, length) };
  }
}

/** Llama (Touvron et al. 2023), as transformers' LlamaForCausalLM. */
export class Llama extends nn.Module implements CausalLM {
  readonly model: LlamaDecoder;
  readonly lm_head: nn.Linear;
  readonly device: Device;
  readonly virtualTokens: VirtualTokens = new VirtualTokens();
  stopTokens: readonly number[];
  origin: ModelOrigin | null = null;

  /** From tensors named as `llamaParameters` names them. */
  constructor(
    readonly config: LlamaConfig,
    tensors: ReadonlyMap<string, Tensor>,
  ) {
    super();
    const weights = new Weights(tensors);
    this.model = new LlamaDecoder(weights.at("model"), config);
    const embedding = this.model.embed_tokens.weight;
    this.lm_head = new nn.Linear(config.tie_word_embeddings ? embedding : weights.get("lm_head.weight"));
    this.device = embedding.device;
    this.stopTokens = endTokens(config.eos_token_id);
  }

  get vocabSize(): number {
    return this.config.vocab_size;
  }

  get contextLength(): number {
    return this.config.max_position_embeddings;
  }

  get cacheShape(): CacheShape {
    return { layers: this.config.num_hidden_layers, kvHeads: this.config.num_key_value_heads, headDim: this.config.head_dim };
  }

  get batchLayout(): BatchLayout {
    return bestLayout(this);
  }

  get blocks(): readonly BlockNames[] {
    return this.model.layers.map((_, layer) => {
      const name = `model.layers.${layer}`;
      return {
        name,
        attentionNorm: `${name}.input_layernorm`,
        attention: `${name}.self_attn`,
        mlpNorm: `${name}.post_attention_layernorm`,
        mlp: `${name}.mlp`,
      };
    });
  }

  hidden(ids: Tensor, options: ForwardOptions = {}): Tensor {
    this.checkAlive(ids);
    checkIds(ids);
    return this.model.forward(ids, attentionContext(this.virtualTokens, options));
  }

  forward(ids: Tensor, options: ForwardOptions = {}): Tensor {
    return this.lm_head.forward(this.hidden(ids, options));
  }

  loss(ids: Tensor, labels: Tensor, { packed = null }: Pick<ForwardOptions, "packed"> = {}): Tensor {
    return causalLoss(this.hidden(ids, { packed }), this.lm_head, labels, packed);
  }
}
