import { experts } from "../decoder/experts.js";
import type { FeedForward } from "../decoder/feed-forward.js";
import { feedForward } from "../decoder/feed-forward.js";
import type { NamedPart } from "../decoder/layer.js";
import { mamba } from "../decoder/mamba.js";
import { feedForwardsTogether } from "../decoder/together.js";
import { count, countOrZero, field, flag, positive } from "../schema.js";
import { type Checked, defineFamily, type Family } from "./family.js";
import { layerTypes, only, rotary, sizes, withDefaults } from "./fields.js";
import { type HybridConfig, hasSharedPart, hybridKeys, hybridName, hybridNames } from "./gguf/granite.js";
import { biasField, counted, graniteScales, headDim, layerCount, rmsEpsilon, silu, vocabSize } from "./gguf/keys.js";
import { convZeros, limitsTimeSteps, ssmKeys } from "./gguf/mamba.js";
import { ropeKeys } from "./gguf/rope.js";
import { mambaFields, mambaFieldsOf, mambaGroupsFit, mambaSizes } from "./mamba.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, everyBias, headRules, normsInFront, rmsNorm, selfAttention, typePerLayer } from "./standard.js";

const fields = {
  ...withDefaults(sizes, { vocab_size: 32000, num_attention_heads: 32 }),
  ...rotary,
  attention_bias: flag(false),
  embedding_multiplier: positive(1),
  logits_scaling: positive(1),
  residual_multiplier: positive(1),
  attention_multiplier: positive(1),
  num_local_experts: countOrZero(8),
  num_experts_per_tok: countOrZero(2),
  shared_intermediate_size: count(1024),
  position_embedding_type: field<"rope" | "nope" | null>(
    '"rope", "nope" or null',
    (value) => ["rope", "nope", null].includes(value as null),
    null,
  ),
  layer_types: layerTypes(["mamba", "linear_attention", "attention", "full_attention"]),
  ...mambaFields,
  output_router_logits: only(false),
};
type Config = Checked<typeof fields>;

type Layers = Pick<Config, "layer_types" | "num_hidden_layers">;
const isMamba = ({ layer_types: types }: Layers, layer: number): boolean => /mamba|linear/.test(types?.[layer] ?? "mamba");
const layersOf = ({ num_hidden_layers: count }: Layers): readonly number[] => Array.from({ length: count }, (_, layer) => layer);

/** Granite 4's hybrids (IBM 2025): transformers' GraniteMoeHybridForCausalLM. */
export const granitemoehybrid: Family = defineFamily({
  className: "GraniteMoeHybridForCausalLM",
  fields,
  rules: [
    ...headRules,
    typePerLayer,
    mambaGroupsFit,
    ({ num_local_experts: experts, num_experts_per_tok: choices }) =>
      experts === 0 || choices <= experts ? null : `"num_experts_per_tok" ${choices} is more than "num_local_experts" ${experts}`,
  ],
  otherNames: { layers_block_type: "layer_types" },
  prefixes: [["", "model."]],
  remarks: ["normalization_function", "init_method", "rope_type"],
  gguf: {
    architecture: (config) =>
      hybridName(
        config,
        layersOf(config).some((layer) => isMamba(config, layer)),
      ),
    architectures: ["granitehybrid", "granitemoe"],
    isOurs: hasSharedPart,
    refuses: (config) => limitsTimeSteps(config.time_step_limit),
    keys: [
      layerCount("num_hidden_layers"),
      counted("embedding_length", "hidden_size"),
      counted("attention.head_count", "num_attention_heads"),
      headDim,
      rmsEpsilon,
      silu,
      vocabSize,
      ...graniteScales,
      ropeKeys(readRope, { dimensions: "always" }),
      hybridKeys<HybridConfig & Layers>(isMamba),
      ssmKeys(mambaSizes, mambaFieldsOf),
      biasField("attention_bias", "attn_q.bias"),
      biasField("mamba_conv_bias", "ssm_conv1d.bias"),
      biasField("mamba_proj_bias", "ssm_in.bias", "without"),
    ],
    layer: hybridNames,
    unread: (config) =>
      config.mamba_conv_bias
        ? []
        : convZeros(
            layersOf(config).filter((layer) => isMamba(config, layer)),
            mambaSizes(config),
          ),
  },
  decoder: (config, path) => {
    const norm = rmsNorm(config);
    const { attention_bias: has } = config;
    const rope = config.position_embedding_type === "rope" ? readRope(config, path) : null;
    const attention = selfAttention(config, { rope, scale: config.attention_multiplier, bias: everyBias(has) });
    const part = mamba({ ...mambaSizes(config), norm: { eps: config.rms_norm_eps, groups: 1, isBeforeGate: false } });
    const mixer = { name: "mamba", part };
    return decoderNamed(
      config,
      norm,
      (layer) => ({
        mixer: isMamba(config, layer) ? mixer : attention,
        feedForward: feedForwardOf(config),
        norm,
        norms: normsInFront,
        residualScale: config.residual_multiplier,
      }),
      {
        ...(rope && { contextLength: contextOf(config, rope) }),
        embedding: { scale: config.embedding_multiplier, scalesPrompt: true },
        head: { scale: 1 / config.logits_scaling },
      },
    );
  },
});

/** The shared layer, and experts beside it where there are any. */
function feedForwardOf(config: Config): NamedPart<FeedForward> {
  const { hidden_act: activation, num_local_experts: number, num_experts_per_tok: choices } = config;
  const names = { gateUp: "input_linear", down: "output_linear" };
  const shared = { name: "shared_mlp", part: feedForward({ inner: config.shared_intermediate_size, activation, names }) };
  if (number === 0) return shared;
  const sparse = experts({
    count: number,
    inner: config.intermediate_size,
    activation: { kind: "gated", activation },
    stored: { kind: "stacked", isTransposed: false, bias: false, names: { up: "input_linear.weight", down: "output_linear.weight" } },
    router: { name: "router", stored: "layer.weight" },
    routing: { kind: "softmaxOfChosen", choices, isNormalized: true },
  });
  return feedForwardsTogether([shared, { name: "block_sparse_moe", part: sparse }]);
}
