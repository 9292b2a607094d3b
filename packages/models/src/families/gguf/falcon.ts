import { sizeOf } from "@lowrank/tensor";
import type { GgufChange } from "./change.js";
import type { GgufTarget, GgufTargets } from "./description.js";
import { mambaNames } from "./mamba.js";
import { llamaNames } from "./targets.js";

/** Falcon-H1's multipliers, which are part of the weights in a file. */
interface FalconConfig {
  readonly tie_word_embeddings: boolean;
  readonly attention_bias: boolean;
  readonly projectors_bias: boolean;
  readonly embedding_multiplier: number;
  readonly lm_head_multiplier: number;
  readonly attention_in_multiplier: number;
  readonly attention_out_multiplier: number;
  readonly key_multiplier: number;
  readonly mlp_multipliers: readonly number[] | null;
  readonly ssm_in_multiplier: number;
  readonly ssm_out_multiplier: number;
  readonly ssm_multipliers: readonly number[] | null;
  readonly mamba_proj_bias: boolean;
  readonly mamba_rms_norm: boolean;
  readonly mamba_norm_before_gate: boolean;
  readonly mamba_n_groups: number;
  readonly mamba_d_state: number;
  readonly mamba_n_heads: number;
}

/** What no file can say; a sentence's end, or null. */
export function unsaid(config: FalconConfig): string | null {
  if (config.attention_bias || config.projectors_bias || config.mamba_proj_bias)
    return "projections of attention or of a Mamba have biases";
  if (config.mamba_rms_norm && config.mamba_norm_before_gate) return '"mamba_norm_before_gate" is true';
  if (config.tie_word_embeddings && config.embedding_multiplier !== config.lm_head_multiplier)
    return "the embeddings and the head, which are the same, have different multipliers";
  return null;
}

/** A parameter times some numbers, one after another, in the file. */
export function scaled(name: string, ...factors: readonly number[]): GgufTarget {
  return ({ shape, suffix }) => ({
    tensors: [{ name: `${name}.${suffix}`, shape }],
    changes: factors.toReversed().flatMap((by) => scale([by], [sizeOf(shape)])),
  });
}

/** The numbers in f32, as they are multiplied there. */
function scale(by: readonly number[], runs: readonly number[]): readonly GgufChange[] {
  return by.every((each) => each === 1) ? [] : [{ kind: "scale", by: by.map(Math.fround), runs }];
}

/** The parts of a layer, each times its multipliers. */
export function falconNames(config: FalconConfig): GgufTargets {
  const { attention_in_multiplier: into, ssm_in_multiplier: intoMamba, mamba_n_heads: heads } = config;
  const [gate = 1, down = 1] = config.mlp_multipliers ?? [];
  const inputs: GgufTarget = ({ shape: [rows = 0, columns = 1], suffix }) => {
    const states = config.mamba_n_groups * config.mamba_d_state;
    const inner = (rows - 2 * states - heads) / 2;
    // Gates, inputs, B, C and time steps.
    const runs = [inner, inner, states, states, heads].map((count) => count * columns);
    const parts = runs.map((_, part) => config.ssm_multipliers?.[part] ?? 1);
    return {
      tensors: [{ name: `ssm_in.${suffix}`, shape: [rows, columns] }],
      changes: [...scale(parts, runs), ...scale([intoMamba], [rows * columns])],
    };
  };
  return {
    ...llamaNames,
    ...mambaNames("mamba", config.mamba_n_groups),
    "mamba.in_proj": inputs,
    "mamba.out_proj": scaled("ssm_out", config.ssm_out_multiplier),
    "self_attn.q_proj": scaled("attn_q", into),
    "self_attn.k_proj": scaled("attn_k", config.key_multiplier, into),
    "self_attn.v_proj": scaled("attn_v", into),
    "self_attn.o_proj": scaled("attn_output", config.attention_out_multiplier),
    "feed_forward.gate_proj": scaled("ffn_gate", gate),
    "feed_forward.up_proj": "ffn_up",
    "feed_forward.down_proj": scaled("ffn_down", down),
    // Without a suffix.
    "pre_ff_layernorm.weight": "ffn_norm",
  };
}
