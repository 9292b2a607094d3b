import { CheckpointError } from "@lowrank/tensor";
import * as z from "zod/mini";
import type { RopeOptions, RopeScaling } from "../decoder/rope.js";
import { checked, count, field, flag, positive, shown } from "../schema.js";
import { numberOrNull, type RopeFields, type Sizes } from "./fields.js";

/** What rotary parameters are read of. */
export type RotaryConfig = RopeFields & Pick<Sizes, "hidden_size" | "num_attention_heads" | "head_dim" | "max_position_embeddings">;

export interface ReadRopeOptions {
  /** θ where the file does not say; 10000 when absent. */
  readonly theta?: number;
  /** The type of layer whose parameters are read, where each has its own. */
  readonly layerType?: string;
  /** True for a family that can turn a part of a head. */
  readonly isPartial?: boolean;
  /** The part that turns where the file does not say; 1 when absent. */
  readonly partial?: number;
  readonly headDim?: number;
  /** The parameters where a file has none, but for θ. */
  readonly absent?: Readonly<Record<string, unknown>>;
  readonly pairing?: RopeOptions["pairing"];
  readonly isReversed?: boolean;
  /** What this family means by a type. */
  readonly aliases?: Readonly<Record<string, RopeScaling["kind"]>>;
}

const kinds = ["default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional"] as const;
/** Other names: "su" of older Phi-3 files, and "mrope", whose three positions are one in a text. */
const otherNames: Readonly<Record<string, RopeScaling["kind"]>> = { su: "longrope", mrope: "default" };

const factors = (): z.ZodMiniType<readonly number[], unknown> =>
  field<readonly number[]>("a list of numbers above 0", (value) => Array.isArray(value) && value.every((item) => item > 0));

/** Fields of each kind of scaling, wherever they stand. */
const schemas = {
  default: z.object({}),
  linear: z.object({ factor: positive() }),
  dynamic: z.object({ factor: positive() }),
  yarn: z.object({
    factor: numberOrNull(),
    beta_fast: numberOrNull(),
    beta_slow: numberOrNull(),
    attention_factor: numberOrNull(),
    mscale: numberOrNull(),
    mscale_all_dim: numberOrNull(),
    truncate: flag(true),
  }),
  longrope: z.object({ short_factor: factors(), long_factor: factors(), factor: numberOrNull(), attention_factor: numberOrNull() }),
  llama3: z.object({ factor: positive(), low_freq_factor: positive(), high_freq_factor: positive() }),
  proportional: z.object({ factor: positive(1) }),
};

/** What every kind has. */
const common = z.object({ rope_theta: positive(), partial_rotary_factor: positive(), original_max_position_embeddings: count() });

/**
 * The rotary parameters of a config.json: `rope_scaling` and `rope_theta` as hub files have them, or `rope_parameters`, for each type of
 * layer where it has several. Throws CheckpointError for kinds that are not known, and for numbers that are missing or wrong.
 */
export function readRope(config: RotaryConfig, path: string, options: ReadRopeOptions = {}): RopeOptions {
  const { theta: usual = 10000, layerType, isPartial = false, partial = 1, pairing, isReversed } = options;
  const hasOld = config.rope_scaling !== null && Object.keys(config.rope_scaling).length > 0;
  const all = (hasOld ? config.rope_scaling : config.rope_parameters) ?? options.absent ?? {};
  const nested = layerType === undefined ? undefined : all[layerType];
  const own = (typeof nested === "object" && nested !== null ? nested : all) as Readonly<Record<string, unknown>>;
  const place = `${hasOld ? "rope_scaling" : "rope_parameters"}${own === all ? "" : `.${layerType}`}`;
  const { max_position_embeddings: most } = config;
  const fields = {
    ...own,
    rope_theta: own["rope_theta"] ?? config.rope_theta ?? usual,
    partial_rotary_factor: own["partial_rotary_factor"] ?? config.partial_rotary_factor ?? partial,
    original_max_position_embeddings: config.original_max_position_embeddings ?? own["original_max_position_embeddings"] ?? most,
  };
  const {
    rope_theta: theta,
    partial_rotary_factor: share,
    original_max_position_embeddings: length,
  } = checked(common, fields, path, place);
  if (share !== 1 && !isPartial)
    throw new CheckpointError(`${path}: "partial_rotary_factor" is ${share}, only 1 is supported for this family.`, path);
  const headDim = options.headDim ?? config.head_dim ?? config.hidden_size / config.num_attention_heads;
  const kind = kindOf(own["rope_type"] ?? own["type"] ?? "default", { ...otherNames, ...options.aliases }, place, path);
  const dims = kind === "proportional" ? headDim : Math.floor(headDim * share);
  if (dims % 2 !== 0 || dims === 0) {
    const fact =
      share === 1
        ? `"head_dim" ${headDim} is odd, rotary embeddings need an even one`
        : `"partial_rotary_factor" ${share} lets ${dims} of a head's ${headDim} numbers turn, and they turn by pairs`;
    throw new CheckpointError(`${path}: ${fact}. Correct the file or fetch it again.`, path);
  }
  const made = { theta, dims, ...(pairing && { pairing }), ...(isReversed && { isReversed }) };
  const read = <K extends keyof typeof schemas>(of: K): z.output<(typeof schemas)[K]> =>
    checked(schemas[of] as unknown as z.ZodMiniType<z.output<(typeof schemas)[K]>, unknown>, fields, path, place);
  const scaled = (scaling: RopeScaling, attentionFactor = 1): RopeOptions => ({ ...made, scaling, attentionFactor });
  switch (kind) {
    case "default":
      return scaled({ kind });
    case "linear":
      return scaled({ kind, factor: read(kind).factor });
    case "dynamic":
      return scaled({ kind, factor: read(kind).factor, length: most });
    case "llama3": {
      const { factor, low_freq_factor: lowFactor, high_freq_factor: highFactor } = read(kind);
      return scaled({ kind, factor, lowFactor, highFactor, length });
    }
    case "proportional":
      return scaled({ kind, factor: read(kind).factor, pairs: Math.floor((share * headDim) / 2) });
    case "yarn": {
      const {
        factor: given,
        beta_fast: fast,
        beta_slow: slow,
        attention_factor: known,
        mscale,
        mscale_all_dim: all,
        truncate,
      } = read(kind);
      const factor = given ?? most / length;
      const stretch = (by: number): number => (factor <= 1 ? 1 : 0.1 * by * Math.log(factor) + 1);
      const own = mscale && all ? stretch(mscale) / stretch(all) : stretch(1);
      return scaled({ kind, factor, length, betaFast: fast || 32, betaSlow: slow || 1, truncate }, known ?? own);
    }
    case "longrope": {
      const { short_factor: short, long_factor: long, factor: given, attention_factor: known } = read(kind);
      const wrong = [short, long].find((list) => list.length !== dims / 2);
      if (wrong)
        throw new CheckpointError(`${path}: "${place}" has ${wrong.length} factors, for ${dims / 2} pairs of numbers that turn.`, path);
      const factor = given ?? most / length;
      return scaled({ kind, short, long, length }, known ?? (factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(length))));
    }
  }
}

/**
 * The rotary parameters of one type of layer, as transformers reads the files of families that have two (Gemma 3, OLMo 3): what stands under the
 * type's name in `rope_parameters`, else plain ones; and for full layers what `rope_scaling` has beside. YaRN's `truncate` is read beside the types.
 */
export function ofLayerType<C extends RotaryConfig>(config: C, type: "full_attention" | "sliding_attention"): C {
  const { rope_parameters: all, rope_scaling: old } = config;
  const given = all?.[type];
  const under = typeof given === "object" && given !== null ? given : { rope_type: "default" };
  const { truncate: _, ...own } = { ...under, ...(type === "full_attention" && old) } as Readonly<Record<string, unknown>>;
  const read = { ...own, ...(all?.["truncate"] !== undefined && { truncate: all["truncate"] }) };
  const isOld = type === "full_attention" && old !== null && Object.keys(old).length > 0;
  return { ...config, rope_scaling: isOld ? read : null, rope_parameters: isOld ? null : { [type]: read } };
}

/** What stands among rotary parameters in some files beside what the schemas read; hunyuan's and ministral3's own read the first two. */
const others = ["alpha", "llama_4_scaling_beta", "rope_type", "type", "max_position_embeddings"];
/** Of several positions a token, which are one in a text, and multipliers that nobody multiplies by. */
const without = ["mrope_section", "mrope_interleaved", "short_mscale", "long_mscale", "finetuned"];
const knownFields: ReadonlySet<string> = new Set([
  ...[common, ...Object.values(schemas)].flatMap(({ shape }) => Object.keys(shape)),
  ...others,
  ...without,
]);

/** Rotary parameters of a config.json that nothing reads, by their places in it. */
export function unreadRope(json: Readonly<Record<string, unknown>>): string[] {
  const below = (value: unknown, place: string): string[] => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return [];
    return Object.entries(value).flatMap(([name, own]) => {
      if (knownFields.has(name)) return [];
      const isLayerType = typeof own === "object" && own !== null && !Array.isArray(own);
      return isLayerType ? below(own, `${place}.${name}`) : own === null ? [] : [`${place}.${name}`];
    });
  };
  return ["rope_scaling", "rope_parameters"].flatMap((place) => below(json[place], place));
}

/** Positions that a model looks at: those of its config, and for kinds that reach further by themselves as many more. */
export function contextOf({ max_position_embeddings: most }: RotaryConfig, { scaling }: RopeOptions): number {
  if (scaling.kind === "dynamic") return Math.floor(most * scaling.factor);
  return scaling.kind === "yarn" ? Math.max(most, Math.floor(scaling.length * scaling.factor)) : most;
}

function kindOf(type: unknown, aliases: Readonly<Record<string, RopeScaling["kind"]>>, place: string, path: string): RopeScaling["kind"] {
  const alias = typeof type === "string" && Object.hasOwn(aliases, type) ? aliases[type] : undefined;
  const found = alias ?? kinds.find((kind) => kind === type);
  if (found) return found;
  throw new CheckpointError(
    `${path}: "${place}" has the type ${shown(type)}, supported are ${kinds.slice(0, -1).join(", ")} and ${kinds.at(-1)}. Use a checkpoint with one of these.`,
    path,
  );
}

/** The scale of scores of latent attention: 1/√dim, times the square of what YaRN stretches them by where the file has `mscale_all_dim`. */
export function latentScale(config: RotaryConfig, dim: number): number {
  const own = (config.rope_scaling ?? config.rope_parameters ?? {}) as Readonly<Record<string, unknown>>;
  const { mscale_all_dim: all = 0, factor = 1 } = own;
  const isScaled = (own["rope_type"] ?? own["type"] ?? "default") !== "default";
  const stretch = isScaled && Number(all) !== 0 && Number(factor) > 1 ? 0.1 * Number(all) * Math.log(Number(factor)) + 1 : 1;
  return (stretch * stretch) / Math.sqrt(dim);
}
