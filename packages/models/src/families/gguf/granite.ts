import { largest } from "@lowrank/tensor";
import type { GgufField, GgufKey, GgufTarget, GgufTargets } from "./description.js";
import { expertNames } from "./experts.js";
import type { GgufReader } from "./facts.js";
import { mambaNames } from "./mamba.js";
import { llamaNames, neighbours } from "./targets.js";

const u32 = (value: number): GgufField => ({ type: "u32", value });

/** What Granite's hybrids are filed by. */
export interface HybridConfig {
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number | null;
  readonly max_position_embeddings: number;
  readonly intermediate_size: number;
  readonly shared_intermediate_size: number;
  readonly num_local_experts: number;
  readonly num_experts_per_tok: number;
  readonly position_embedding_type: "rope" | "nope" | null;
  readonly mamba_n_groups: number;
}

/** Positions that a file of layers without them names. */
const anyLength = 2 ** 20;
const hybrid = "granitehybrid";

/** The architecture, by what the layers are. */
export function hybridName({ num_local_experts: experts }: HybridConfig, hasMamba: boolean): string {
  return hasMamba ? hybrid : experts > 0 ? "granitemoe" : "granite";
}

/** True for a file whose feed-forward has a part for all tokens, which files of others lack. */
export function hasSharedPart(file: GgufReader): boolean {
  return file.someLayerHas("ffn_gate_shexp.weight") || !file.someLayerHas("ffn_gate_exps.weight");
}

/** Which layers have a Mamba, the experts, and whether there are positions. */
export function hybridKeys<Config extends HybridConfig>(isMamba: (config: Config, layer: number) => boolean): GgufKey<Config> {
  return {
    read: (file) => {
      const heads = file.perLayer("attention.head_count_kv", file.layerCount());
      const [dense] = file.shape("blk.0.ffn_gate.weight") ?? [];
      return {
        max_position_embeddings: file.count("context_length"),
        intermediate_size: file.count("feed_forward_length"),
        num_key_value_heads: largest(heads),
        layer_types: heads.map((count) => (count === 0 ? "mamba" : "attention")),
        num_local_experts: file.fewCount("expert_count", 0),
        num_experts_per_tok: file.count("expert_used_count", 0),
        shared_intermediate_size: file.count("expert_shared_feed_forward_length", dense),
        position_embedding_type: file.flag("rope.scaling.finetuned", file.architecture !== hybrid) ? "rope" : "nope",
      };
    },
    write: (config) => {
      const { num_hidden_layers: count, num_attention_heads: all, num_key_value_heads: kvHeads } = config;
      const { num_local_experts: experts, shared_intermediate_size: shared, position_embedding_type: positions } = config;
      const heads = Array.from({ length: count }, (_, layer) => (isMamba(config, layer) ? 0 : (kvHeads ?? all)));
      return {
        context_length: u32(positions === "rope" ? config.max_position_embeddings : anyLength),
        feed_forward_length: u32(experts === 0 ? shared : config.intermediate_size),
        "attention.head_count_kv": { type: "i32[]", value: heads },
        expert_count: u32(experts),
        // llama.cpp ends its process over more than there are.
        expert_used_count: u32(Math.min(experts, config.num_experts_per_tok)),
        expert_shared_feed_forward_length: u32(shared),
        "rope.scaling.finetuned": { type: "bool", value: positions === "rope" },
      };
    },
    refuses: (config) => {
      const hasMamba = Array.from({ length: config.num_hidden_layers }, (_, layer) => isMamba(config, layer)).includes(true);
      if (!hasMamba && config.position_embedding_type !== "rope") return "no layer has positions";
      return config.mamba_n_groups === 1 ? null : "a Mamba's norm is over several groups";
    },
  };
}

/** The parts of a layer. Without experts, what all tokens go through is the feed-forward itself. */
export function hybridNames(config: HybridConfig): GgufTargets {
  const end = config.num_local_experts > 0 ? "_shexp" : "";
  return {
    ...llamaNames,
    ...neighbours(config),
    ...mambaNames("mamba", config.mamba_n_groups),
    ...expertNames("block_sparse_moe", "router"),
    "shared_mlp.input_linear": halves(`ffn_gate${end}`, `ffn_up${end}`),
    "shared_mlp.output_linear": `ffn_down${end}`,
  };
}

/** Rows of two tensors, one behind the other. */
function halves(first: string, second: string): GgufTarget {
  return ({ shape: [rows = 0, ...rest], suffix }) => ({
    tensors: [first, second].map((name) => ({ name: `${name}.${suffix}`, shape: [rows / 2, ...rest] })),
  });
}
