import type { RopeOptions } from "../../decoder/rope.js";
import type { GgufField, GgufKey } from "./description.js";
import type { GgufReader } from "./facts.js";
import { shortest } from "./keys.js";
import { llama3Factors, llama3Of } from "./rope-factors.js";

type Json = Readonly<Record<string, unknown>>;

/** For errors; a config that is written was read before. */
const configFile = "config.json";

/** How a family's rotary parameters stand in a file. */
interface RopeKeys<Config> {
  /** The numbers of a head of which some turn; by the file's usual sizes when absent. */
  readonly headDim?: (file: GgufReader) => number;
  /** Of layers with a window, which are never stretched; the same for all layers when absent. */
  readonly local?: (config: Config, path: string) => RopeOptions;
  /** θ of those where a file does not say; that of the others when absent. */
  readonly localTheta?: number;
  /** False where factors of long texts stand in a file without a word. */
  readonly isLongropeNamed?: boolean;
  /** What llama.cpp multiplies cosines and sines by under YaRN, where a file has a factor of its own for it, `all`. */
  readonly stretch?: (factor: number, all: number) => number;
  /** True where "none" is written for positions that are not stretched. */
  readonly isNamedNone?: boolean;
  /** Whether the numbers of a head that turn are written too. */
  readonly dimensions?: "always" | "never";
  /** True for a family that can turn a part of a head. */
  readonly isPartial?: boolean;
  /** False where files do not say that YaRN's ramp ends between pairs, and it does. */
  readonly isTruncated?: boolean;
  /** True where llama.cpp reads between which turns YaRN's ramp lies; of most families it takes the usual. */
  readonly isRampRead?: boolean;
}

const u32 = (value: number): GgufField => ({ type: "u32", value });
const f32 = (value: number): GgufField => ({ type: "f32", value });

/** θ, the part of a head that turns, and what frequencies are stretched by: `rope_parameters` of a config.json. */
export function ropeKeys<Config>(rope: (config: Config, path: string) => RopeOptions, options: RopeKeys<Config> = {}): GgufKey<Config> {
  const {
    headDim = headDimOf,
    dimensions = "never",
    isPartial = false,
    isTruncated = true,
    isRampRead = false,
    local,
    localTheta,
  } = options;
  const { isNamedNone = false, isLongropeNamed = true, stretch } = options;
  const base = (factor: number, all: unknown): number =>
    stretch && typeof all === "number" && all !== 0 ? stretch(factor, all) : yarnStretch(factor);
  return {
    read: (file) => {
      const theta = shortest(file.number("rope.freq_base", 10000));
      const scaling = scalingOf(file, theta, base);
      const ends = scaling["rope_type"] === "yarn" && !isTruncated ? { truncate: false } : {};
      const own = { rope_theta: theta, ...partOf(file, headDim(file), isPartial), ...scaling, ...ends };
      if (!local) return { rope_parameters: own };
      const near = { rope_type: "default", rope_theta: shortest(file.number("rope.freq_base_swa", localTheta ?? theta)) };
      return { rope_parameters: { full_attention: own, sliding_attention: near } };
    },
    write: (config) => {
      const { theta, dims, scaling, attentionFactor } = rope(config, configFile);
      const given = givenParameters(config as Json);
      return {
        "rope.freq_base": f32(theta),
        "rope.freq_base_swa": local ? f32(local(config, configFile).theta) : null,
        "rope.dimension_count": dimensions === "always" ? u32(dims) : null,
        ...(isNamedNone && scaling.kind === "default" && { "rope.scaling.type": { type: "string", value: "none" } as const }),
        ...scalingKeys(scaling, attentionFactor ?? 1, given, { isLongropeNamed, base }),
      };
    },
    factors: (config) => ropeFactors(rope(config, configFile)),
    refuses: (config) => {
      const { scaling, isReversed = false } = rope(config, configFile);
      if (scaling.kind === "yarn" && scaling.truncate !== isTruncated) return `"truncate" is ${scaling.truncate}`;
      if (local && local(config, configFile).scaling.kind !== "default") return "positions of layers with a window are scaled";
      if (isReversed) return "heads turn the other way round";
      return scaling.kind === "dynamic" || scaling.kind === "proportional" ? `positions are of the kind "${scaling.kind}"` : null;
    },
    notes: (config) => {
      const { scaling } = rope(config, configFile);
      return scaling.kind === "yarn" ? rampNote(scaling, isRampRead) : scaling.kind === "longrope" ? lengthNote(scaling) : null;
    },
  };
}

type Scaling<Kind extends RopeOptions["scaling"]["kind"]> = Extract<RopeOptions["scaling"], { readonly kind: Kind }>;

/** llama.cpp rounds the ramp's ends to whole pairs, and takes turns of its own where it does not read them (llama_context, ggml_rope_yarn_corr_dims). */
function rampNote({ betaFast, betaSlow, truncate }: Scaling<"yarn">, isRampRead: boolean): string | null {
  if (!isRampRead && (betaFast !== usualRamp.fast || betaSlow !== usualRamp.slow))
    return `YaRN's "beta_fast" and "beta_slow" are ${betaFast} and ${betaSlow}, and llama.cpp takes ${usualRamp.fast} and ${usualRamp.slow} for this architecture: its answers are others.`;
  return truncate
    ? null
    : `YaRN's "truncate" is false, and llama.cpp rounds the ends of the ramp to whole pairs: its answers differ, a little where heads are large.`;
}

const usualRamp = { fast: 32, slow: 1 };

const lengthNote = ({ length }: Scaling<"longrope">): string =>
  `Positions have factors of their own for texts of more than ${length} tokens. llama.cpp takes these wherever its context is larger, for short texts too: for texts of up to ${length} tokens start it with -c ${length}.`;

/** The rotary parameters as a config.json has them, of layers without a window. */
function givenParameters(config: Json): Json {
  const old = config["rope_scaling"] as Json | null;
  const found = (old && Object.keys(old).length > 0 ? old : (config["rope_parameters"] as Json | null)) ?? {};
  return (found["full_attention"] as Json | undefined) ?? found;
}

function scalingKeys(
  scaling: RopeOptions["scaling"],
  attentionFactor: number,
  given: Json,
  { isLongropeNamed, base }: Named,
): Readonly<Record<string, GgufField | null>> {
  const type = (value: string): GgufField => ({ type: "string", value });
  const number = (name: string): GgufField | null => (typeof given[name] === "number" ? f32(given[name]) : null);
  switch (scaling.kind) {
    case "linear":
      return { "rope.scaling.type": type("linear"), "rope.scaling.factor": f32(scaling.factor) };
    case "yarn": {
      const further = attentionFactor / base(scaling.factor, given["mscale_all_dim"]);
      return {
        "rope.scaling.type": type("yarn"),
        "rope.scaling.factor": f32(scaling.factor),
        "rope.scaling.original_context_length": u32(scaling.length),
        "rope.scaling.yarn_attn_factor": number("attention_factor"),
        "rope.scaling.yarn_beta_fast": number("beta_fast"),
        "rope.scaling.yarn_beta_slow": number("beta_slow"),
        "rope.scaling.attn_factor": Math.abs(further - 1) < 1e-6 ? null : f32(further),
      };
    }
    case "longrope":
      return {
        "rope.scaling.type": isLongropeNamed ? type("longrope") : null,
        "rope.scaling.original_context_length": u32(scaling.length),
        "rope.scaling.attn_factor": f32(attentionFactor),
      };
    default:
      return {};
  }
}

/** What YaRN multiplies cosines and sines by. llama.cpp does so, and by `attn_factor` as well. */
export const yarnStretch = (factor: number, by = 1): number => (factor <= 1 ? 1 : 0.1 * by * Math.log(factor) + 1);

interface Named {
  readonly isLongropeNamed: boolean;
  readonly base: (factor: number, all: unknown) => number;
}

/** The vectors that a config's frequencies are divided by. */
function ropeFactors({ theta, dims, scaling }: RopeOptions): Readonly<Record<string, Float32Array>> {
  if (scaling.kind === "llama3") return { "rope_freqs.weight": llama3Factors(theta, dims, scaling) };
  if (scaling.kind !== "longrope") return {};
  return {
    "rope_factors_long.weight": Float32Array.from(scaling.long),
    "rope_factors_short.weight": Float32Array.from(scaling.short),
  };
}

/** The size of a head by the file's sizes. */
export function headDimOf(file: GgufReader): number {
  const heads = file.count("attention.head_count");
  return file.count("attention.key_length", undefined) ?? file.count("embedding_length") / Math.max(heads, 1);
}

function partOf(file: GgufReader, headDim: number, isPartial: boolean): Json {
  const dims = file.count("rope.dimension_count", undefined);
  if (dims === undefined || dims === headDim) return {};
  if (isPartial && dims > 0 && dims < headDim) return { partial_rotary_factor: dims / headDim };
  throw file.wrong("rope.dimension_count", dims, isPartial ? `at most a head's ${headDim}` : `${headDim}, as a head has`);
}

/** What stretches the frequencies, in the words of a config.json. */
function scalingOf(file: GgufReader, theta: number, base: Named["base"]): Json {
  const type = file.text("rope.scaling.type", "none");
  const factor = file.number("rope.scaling.factor", undefined) ?? file.number("rope.scale_linear", undefined);
  const length = file.count("rope.scaling.original_context_length", undefined);
  const original = length === undefined ? {} : { original_max_position_embeddings: length };
  const stretch = file.number("rope.scaling.attn_factor", undefined);
  const vectors = file.facts.factors;
  const [long, short] = [vectors.get("rope_factors_long.weight"), vectors.get("rope_factors_short.weight")];
  // Training parameters of no influence on what is computed.
  file.flag("rope.scaling.finetuned", false);
  switch (type) {
    case "none": {
      if (long || short) return longropeOf(file, stretch, original);
      const factors = vectors.get("rope_freqs.weight");
      if (factors) return llama3Of(factors, theta, file);
      return factor === undefined || factor === 1 ? { rope_type: "default" } : { rope_type: "linear", factor: shortest(factor) };
    }
    case "linear":
      return { rope_type: "linear", factor: shortest(factor ?? 1) };
    case "yarn": {
      const named = { attention_factor: "yarn_attn_factor", beta_fast: "yarn_beta_fast", beta_slow: "yarn_beta_slow" };
      const numbers = Object.entries(named).flatMap(([name, key]) => {
        const value = file.number(`rope.scaling.${key}`, undefined);
        return value === undefined ? [] : [[name, shortest(value)] as const];
      });
      const total =
        stretch === undefined
          ? {}
          : { attention_factor: stretch * base(factor ?? 1, file.number("rope.scaling.yarn_log_multiplier", undefined)) };
      return { rope_type: "yarn", factor: shortest(factor ?? 1), ...original, ...Object.fromEntries(numbers), ...total };
    }
    case "longrope":
      return longropeOf(file, stretch, original);
    default:
      throw file.wrong("rope.scaling.type", type, '"none", "linear", "yarn" or "longrope"');
  }
}

/** Factors of short and long texts. The stretch of cosines and sines is only said where it is not the usual one. */
function longropeOf(file: GgufReader, stretch: number | undefined, original: { readonly original_max_position_embeddings?: number }): Json {
  const [long, short] = ["long", "short"].map((name) => file.facts.factors.get(`rope_factors_${name}.weight`));
  if (!long || !short)
    throw file.error(
      "positions are scaled by factors of their own, and there is no rope_factors_long.weight or no rope_factors_short.weight.",
      "Convert the model with a current llama.cpp.",
    );
  const most = file.count("context_length");
  const length = original.original_max_position_embeddings ?? most;
  const usual = most > length ? Math.sqrt(1 + Math.log(most / length) / Math.log(length)) : 1;
  return {
    rope_type: "longrope",
    ...original,
    long_factor: Array.from(long, shortest),
    short_factor: Array.from(short, shortest),
    ...(Math.abs((stretch ?? 1) / usual - 1) > 1e-6 && { attention_factor: stretch ?? 1 }),
  };
}
