// What random config.json files are drawn of: dice by a seed, and fields that several families have.

/**
 * @typedef {Record<string, unknown>} Json
 * @typedef {{ below: (n: number) => number, between: (least: number, most: number) => number, pick: <T>(from: readonly T[]) => T,
 *   chance: (of: number) => boolean, number: (least: number, most: number) => number }} Dice
 */

/** Random numbers by a seed: mulberry32. @param {number} seed @returns {Dice} */
export function dice(seed) {
  let state = (Math.imul(seed, 2654435761) + 1) >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (/** @type {number} */ n) => Math.floor(next() * n);
  return {
    below,
    between: (least, most) => least + below(most - least + 1),
    pick: (from) => /** @type {any} */ (from[below(from.length)]),
    chance: (of) => below(of) === 0,
    number: (least, most) => Number((Math.floor(least + next() * (most - least)) + 0.0625 + below(16) / 17).toPrecision(4)),
  };
}

export const activations = [
  "silu",
  "gelu",
  "gelu_pytorch_tanh",
  "gelu_new",
  "relu",
  "relu2",
  "quick_gelu",
  "tanh",
  "sigmoid",
  "mish",
  "relu6",
];

/** A field that is there, absent or null. @param {Dice} d @param {string} name @param {unknown} value @param {boolean} [takesNull] */
export const perhaps = (d, name, value, takesNull = false) =>
  d.chance(3) ? (takesNull && d.chance(2) ? { [name]: null } : {}) : { [name]: value };

/** A list of so many, each made by its number. @template T @param {number} count @param {(i: number) => T} make */
export const each = (count, make) => Array.from({ length: count }, (_, i) => make(i));

/**
 * What nearly every family has.
 * @param {Dice} d
 * @param {{ eps?: string, headDim?: "free" | "none" | "given", layers?: number, act?: string | null }} [options]
 *   headDim: null and absent too; never there; always there
 */
export function sizes(d, { eps = "rms_norm_eps", headDim = "free", layers = d.between(1, 3), act = "hidden_act" } = {}) {
  const kvHeads = d.pick([1, 1, 2, 3]);
  const heads = kvHeads * d.pick([1, 2, 3]);
  const ofWidth = 4 * d.between(1, 3);
  const width = heads * ofWidth;
  return {
    vocab_size: d.between(19, 60),
    hidden_size: width,
    intermediate_size: d.between(3, 25),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    ...(kvHeads === heads ? { num_key_value_heads: heads } : { num_key_value_heads: kvHeads }),
    max_position_embeddings: d.between(12, 48),
    pad_token_id: 0,
    bos_token_id: 1,
    eos_token_id: d.pick([2, [2, 3]]),
    [eps]: d.pick([1e-6, 1e-5, 1e-3, 0.1]),
    ...(act !== null && d.chance(2) && { [act]: d.pick(activations) }),
    ...perhaps(d, "tie_word_embeddings", d.chance(2)),
    ...(headDim === "given"
      ? { head_dim: 4 * d.between(1, 4) }
      : headDim === "free"
        ? d.chance(6)
          ? { head_dim: null }
          : perhaps(d, "head_dim", 4 * d.between(1, 4))
        : {}),
  };
}

/** The numbers of a head that may turn. @param {Json} config */
const headOf = (config) => Number(config["head_dim"] ?? Number(config["hidden_size"]) / Number(config["num_attention_heads"]));

/**
 * Parameters of one kind of rope.
 * @param {Dice} d
 * @param {Json} config
 * @param {{ kinds?: readonly string[], partial?: boolean, head?: number, share?: number }} [options]
 * @returns {Json}
 */
export function ropeOf(
  d,
  config,
  {
    kinds = ["default", "default", "linear", "dynamic", "yarn", "longrope", "llama3"],
    partial = false,
    head = headOf(config),
    share = 1,
  } = {},
) {
  const kind = d.pick(kinds);
  const most = Number(config["max_position_embeddings"]);
  const part = partial && head % 8 === 0 && d.chance(2) ? d.pick([0.5, 1, ...(head % 16 === 0 ? [0.25, 0.75] : [])]) : null;
  const turned = head * (part ?? share);
  const common = { rope_type: kind, ...(part !== null && { partial_rotary_factor: part }) };
  const original = d.between(5, most);
  switch (kind) {
    case "linear":
      return { ...common, factor: d.pick([1, 2, 2.5, 8]) };
    case "dynamic":
      // Without a head_dim beside a null one transformers cannot compute it.
      return turned <= 2 || config["head_dim"] === null ? { ...common, rope_type: "default" } : { ...common, factor: d.pick([1, 2, 3.5]) };
    case "yarn":
      return {
        ...common,
        factor: d.pick([1, 2, 4, 8.5]),
        ...(d.chance(4) ? {} : { original_max_position_embeddings: original }),
        ...perhaps(d, "beta_fast", d.pick([32, 3, 4.5]), true),
        ...perhaps(d, "beta_slow", d.pick([1, 0.25]), true),
        ...(d.chance(4) && { attention_factor: d.number(0.5, 2) }),
        ...(d.chance(3) && { mscale: d.pick([1, 0.7, 0]), mscale_all_dim: d.pick([1, 0.5, 0]) }),
        ...(d.chance(3) && { truncate: d.chance(2) }),
      };
    case "longrope":
      return {
        ...common,
        short_factor: each(turned / 2, () => d.number(1, 3)),
        long_factor: each(turned / 2, () => d.number(1, 9)),
        original_max_position_embeddings: original,
        ...(d.chance(2) && { factor: d.pick([1, 2, 4]) }),
        ...(d.chance(4) && { attention_factor: d.number(0.5, 2) }),
      };
    case "llama3":
      return {
        ...common,
        factor: d.pick([1, 2, 8]),
        low_freq_factor: 1,
        high_freq_factor: d.pick([2, 4]),
        original_max_position_embeddings: original,
      };
    case "proportional":
      return { ...common, partial_rotary_factor: d.pick([0.25, 0.5, 1]), ...(d.chance(2) && { factor: d.pick([1, 2]) }) };
    default:
      return common;
  }
}

/**
 * The fields of one rope for all layers, in either layout.
 * @param {Dice} d
 * @param {Json} config
 * @param {Parameters<typeof ropeOf>[2]} [options]
 * @returns {Json}
 */
export function rope(d, config, options = {}) {
  const { partial_rotary_factor: part, ...own } = ropeOf(d, config, options);
  const theta = d.pick([10000, 100.5, 500000, 37]);
  const shared = { ...(part !== undefined && { partial_rotary_factor: part }) };
  if (d.chance(2)) return { rope_parameters: { ...own, ...shared, ...(!d.chance(5) && { rope_theta: theta }) } };
  const isPlain = own["rope_type"] === "default";
  const { rope_type: kind, ...numbers } = own;
  const named = d.chance(3) ? { type: kind } : { rope_type: kind };
  return {
    ...perhaps(d, "rope_theta", theta),
    ...shared,
    ...(isPlain ? (d.chance(2) ? { rope_scaling: null } : {}) : { rope_scaling: { ...named, ...numbers } }),
  };
}

/** Ropes of full and sliding layers. @param {Dice} d @param {Json} config @param {readonly string[]} [kinds] */
export const ropes = (d, config, kinds = ["default", "default", "linear", "yarn", "llama3"]) => ({
  full_attention: { ...ropeOf(d, config, { kinds }), rope_theta: d.pick([10000, 1000000, 50]) },
  sliding_attention: { rope_type: "default", rope_theta: d.pick([10000, 30]) },
});

/** @param {Dice} d @param {Json} config @param {readonly string[]} [kinds] */
export const layerTypes = (d, config, kinds = ["sliding_attention", "full_attention"]) =>
  each(Number(config["num_hidden_layers"]), () => d.pick(kinds));

export const windowOf = (/** @type {Dice} */ d) => d.pick([1, 2, 3, 5, 9, 100]);
export const bias = (/** @type {Dice} */ d, /** @type {readonly string[]} */ ...names) =>
  Object.assign({}, ...names.map((name) => perhaps(d, String(name), d.chance(2))));

/** @param {Dice} d @param {Json} config @param {number} [least] */
export const mambaOf = (d, config, least = 1) => {
  const groups = d.pick([1, 2]);
  const heads = groups * d.pick([1, 2, 4]);
  const width = Number(config["hidden_size"]);
  const expand = d.between(1, 3) * heads;
  return {
    mamba_n_heads: heads,
    mamba_d_head: d.chance(3) ? "auto" : (width * expand) / heads,
    mamba_n_groups: groups,
    mamba_d_state: d.between(2, 9),
    mamba_d_conv: d.between(Math.max(2, least), 4),
    mamba_expand: expand,
    mamba_chunk_size: d.pick([2, 5, 8, 256]),
    ...bias(d, "mamba_conv_bias", "mamba_proj_bias"),
    ...(d.chance(2) && {
      time_step_limit: d.pick([
        [0.01, 0.5],
        [0.1, 0.8],
        [0.05, 1000.5],
      ]),
    }),
  };
};

/** @param {Dice} d */
export const moe = (d) => {
  const count = d.between(1, 6);
  return { count, choices: d.between(1, count) };
};

/** @param {Dice} d @param {Json} config */
const deltaOf = (d, config) => {
  const keys = d.pick([1, 2]);
  return {
    linear_num_key_heads: keys,
    linear_num_value_heads: keys * d.pick([1, 2, 3]),
    linear_key_head_dim: d.between(2, 8),
    linear_value_head_dim: d.between(2, 9),
    linear_conv_kernel_dim: d.between(2, 5),
    ...(d.chance(2)
      ? { layer_types: layerTypes(d, config, ["linear_attention", "full_attention"]) }
      : { full_attention_interval: d.between(1, 3) }),
  };
};

/** Gated attention and gated delta nets. @param {Dice} d @param {Json} own @param {...string} flags */
export const deltaModel = (d, own, ...flags) => {
  const even = { ...own, head_dim: 8 * d.between(1, 2) };
  return {
    ...even,
    ...rope(d, even, { partial: true, share: 0.25, kinds: ["default", "default", "linear", "yarn"] }),
    ...deltaOf(d, own),
    ...bias(d, "attention_bias", ...flags),
  };
};

/** Experts under Qwen's names. @param {Dice} d */
export const qwenExperts = (d) => {
  const { count, choices } = moe(d);
  return { num_experts: count, num_experts_per_tok: choices, moe_intermediate_size: d.between(2, 9) };
};

/** And one that every token goes through. @param {Dice} d */
export const sharedExperts = (d) => ({ ...qwenExperts(d), shared_expert_intermediate_size: d.between(2, 9) });

/** @param {Dice} d @param {Json} config */
export const gemma3Of = (d, config) => ({
  ...perhaps(d, "hidden_activation", d.pick(activations)),
  sliding_window: windowOf(d),
  query_pre_attn_scalar: d.pick([8, 24, 256]),
  ...bias(d, "attention_bias"),
  ...(d.chance(3) && { final_logit_softcapping: d.pick([null, 2.5, 30.5]) }),
  ...(d.chance(2) ? { layer_types: layerTypes(d, config) } : { sliding_window_pattern: d.between(1, 3) }),
  ...(d.chance(2)
    ? { rope_parameters: ropes(d, config) }
    : {
        rope_theta: d.pick([1000000, 70]),
        rope_local_base_freq: d.pick([10000, 30]),
        ...(d.chance(2) && { rope_scaling: { rope_type: "linear", factor: 4 } }),
      }),
});
