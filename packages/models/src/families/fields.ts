import * as z from "zod/mini";
import { type ActivationName, activationNames } from "../activation.js";
import { asFloat, choice, count, countOrNull, field, flag, isFloatField, positive, tokenIds } from "../schema.js";

/** Fields of a config.json that change nothing of what a model computes when it is not trained with dropout. */
export const inert: readonly string[] = [
  ...["architectures", "model_type", "transformers_version", "_name_or_path", "dtype", "torch_dtype", "auto_map"],
  ...["bos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "use_cache", "cache_implementation", "pretraining_tp"],
  ...["attention_dropout", "hidden_dropout", "embd_pdrop", "attn_pdrop", "resid_pdrop", "residual_dropout", "embedding_dropout"],
  ...["classifier_dropout", "output_router_logits", "router_aux_loss_coef", "router_z_loss_coef", "num_logits_to_keep"],
  ...["output_attentions", "output_hidden_states", "return_dict", "use_return_dict", "is_decoder", "id2label", "label2id", "num_labels"],
  ...["task_specific_params", "_attn_implementation", "attn_implementation", "_flash_attn_2_enabled", "rope_interleaved", "torchscript"],
  ...["unsloth_version", "unsloth_fixed", "transformers.js_config", "is_llama_config"],
  ...["finetuning_task", "problem_type", "name", "tokenizer_class", "gradient_checkpointing", "keys_to_ignore_at_inference"],
];

/** Checks of fields that hold these values. */
export type FieldsOf<Values> = { readonly [name in keyof Values]: z.ZodMiniType<Values[name], unknown> };

/** What nearly every family has, under transformers' names. */
export interface Sizes {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  /** As many as there are heads when null. */
  readonly num_key_value_heads: number | null;
  /** The width over the heads when null. */
  readonly head_dim: number | null;
  readonly max_position_embeddings: number;
  readonly initializer_range: number;
  readonly hidden_act: ActivationName;
  readonly eos_token_id: number | readonly number[] | null;
  readonly tie_word_embeddings: boolean;
}

/** With the defaults that most families have; a family whose own differ says so behind them. */
export const plainSizes: FieldsOf<Sizes> = {
  vocab_size: count(),
  hidden_size: count(),
  intermediate_size: count(),
  num_hidden_layers: count(),
  num_attention_heads: count(),
  num_key_value_heads: countOrNull(),
  head_dim: countOrNull(),
  max_position_embeddings: count(2048),
  initializer_range: positive(0.02),
  hidden_act: choice(activationNames, "silu"),
  eos_token_id: tokenIds(),
  tie_word_embeddings: flag(false),
};

/** The same fields, with values of a family's own where a file does not say. */
export function withDefaults<Values>(fields: FieldsOf<Values>, defaults: Partial<Values>): FieldsOf<Values> {
  const own = Object.entries(defaults).map(([name, value]) => {
    const check = fields[name as keyof Values] as z.ZodMiniType<unknown, unknown>;
    const filled = orNone(value, check);
    return [name, isFloatField(check) ? asFloat(filled) : filled] as const;
  });
  return { ...fields, ...(Object.fromEntries(own) as Partial<FieldsOf<Values>>) };
}

/** Of families with root mean square norms. */
export interface RmsSizes extends Sizes {
  readonly rms_norm_eps: number;
}

export const sizes: FieldsOf<RmsSizes> = { ...plainSizes, rms_norm_eps: positive(1e-6) };

/** Of families with layer norms. */
export const layerNormSizes: FieldsOf<Sizes & { readonly layer_norm_eps: number }> = { ...plainSizes, layer_norm_eps: positive(1e-5) };

/** Where rotary parameters stand: `readRope` reads them. */
export interface RopeFields {
  readonly rope_theta: number | null;
  readonly rope_scaling: Json | null;
  readonly rope_parameters: Json | null;
  readonly partial_rotary_factor: number | null;
  readonly original_max_position_embeddings: number | null;
}

export const rotary: FieldsOf<RopeFields> = {
  rope_theta: field<number | null>(
    "a number above 0",
    (value) => value === null || (Number.isFinite(value) && (value as number) > 0),
    null,
  ),
  rope_scaling: object(),
  rope_parameters: object(),
  partial_rotary_factor: numberOrNull(),
  original_max_position_embeddings: countOrNull(),
};

/** Layers that see only so many tokens. */
export interface Windows {
  readonly sliding_window: number | null;
  readonly layer_types: readonly ("full_attention" | "sliding_attention")[] | null;
}

export const windows: FieldsOf<Windows> = {
  sliding_window: countOrNull(),
  layer_types: layerTypes(["full_attention", "sliding_attention"]),
};

/** Windows of Qwen's models: layers from `max_window_layers` on have one, where `use_sliding_window` says so. */
export interface QwenWindows extends Windows {
  readonly use_sliding_window: boolean;
  readonly max_window_layers: number;
}

export const qwenWindows: FieldsOf<QwenWindows> = {
  ...windows,
  sliding_window: countOrNull(4096),
  use_sliding_window: flag(false),
  max_window_layers: field("a whole number", (value) => Number.isSafeInteger(value) && (value as number) >= 0, 28),
};

type Json = Readonly<Record<string, unknown>>;

/** A JSON object, or null. */
export function object(): z.ZodMiniType<Json | null, unknown> {
  return field<Json | null>("an object", (value) => value === null || (typeof value === "object" && !Array.isArray(value)), null);
}

/** Fields of single layers, by the layers' numbers, as transformers 5 writes them: of a family that does not read them, none. */
export const noLayerFields: z.ZodMiniType<Json | null, unknown> = field<Json | null>(
  "null or {}: layers with fields of their own are not supported for this family",
  (value) => value === null || (typeof value === "object" && !Array.isArray(value) && Object.keys(value as Json).length === 0),
  null,
);

/** A list, or null. */
export function list<T>(what: string, fits: (item: unknown) => boolean): z.ZodMiniType<readonly T[] | null, unknown> {
  return field<readonly T[] | null>(what, (value) => value === null || (Array.isArray(value) && value.every(fits)), null);
}

/** A number, or null; `fallback` where the file does not say. */
export function numberOrNull(fallback: number | null = null): z.ZodMiniType<number | null, unknown> {
  return asFloat(
    z.pipe(
      z.transform((value: unknown): unknown => (value === undefined ? fallback : value)),
      field<number | null>("a number", (value) => value === null || Number.isFinite(value), null),
    ),
  );
}

/** What another check takes; null for none, and the default where the file does not say. */
export function orNone<T>(fallback: T, check: z.ZodMiniType<T | null, unknown>): z.ZodMiniType<T | null, unknown> {
  return z.pipe(
    z.transform((value: unknown): unknown => (value === undefined ? fallback : value)),
    check,
  );
}

/** A field that is there in some files, of which we have one value only: the others are refused. */
export function only<T>(value: T): z.ZodMiniType<T, unknown> {
  return field<T>(`${JSON.stringify(value)}, the only one that is supported`, (given) => given === value, value);
}

/** The type of each layer, of which only these are known; null where the file does not say. */
export function layerTypes<T extends string>(kinds: readonly T[]): z.ZodMiniType<readonly T[] | null, unknown> {
  const today = (item: unknown): unknown => (kinds.includes(item as T) ? item : (formerTypes.get(item) ?? item));
  return z.pipe(
    z.transform((value: unknown): unknown => (Array.isArray(value) ? value.map(today) : value)),
    list<T>(`a list of ${kinds.join(" and ")}`, (item) => kinds.includes(item as T)),
  );
}

/** Types of layers by the names that older files have for them. */
const formerTypes: ReadonlyMap<unknown, string> = new Map([
  ["attention", "full_attention"],
  ["mamba", "linear_attention"],
]);

/** True, false, or null where the file does not say. */
export function flagOrNull(): z.ZodMiniType<boolean | null, unknown> {
  return field<boolean | null>("true or false", (value) => value === null || typeof value === "boolean", null);
}
