import type { PeftFields } from "../peft/fields.js";
import { layerFields, namesOrNull, takeTargets, targetModules } from "../peft/targets.js";
import { evaFromPeft, evaOptions, evaToPeft } from "./init/eva-options.js";
import { initNamed, initOfPeft } from "./init/table.js";
import type { LoraOptions, LoraPlace } from "./lora.js";
import { wholePair } from "./parts.js";

/** Which of the methods that PEFT files under LORA. */
interface Variant {
  readonly use_dora: boolean;
}

/** LoraConfig of PEFT 0.21, every field, with the values of the options. */
export function loraToPeft(
  given: LoraOptions,
  places: ReadonlyMap<string, LoraPlace>,
  variant: Variant,
): Readonly<Record<string, unknown>> {
  const options = withoutParts(given, places);
  return {
    alora_invocation_tokens: null,
    alpha_pattern: options.alphaPattern,
    arrow_config: null,
    bias: "none",
    corda_config: null,
    ensure_weight_tying: false,
    eva_config: options.init === "eva" ? evaToPeft(evaOptions(options.eva)) : null,
    exclude_modules: namesOrNull(options.exclude),
    fan_in_fan_out: [...places.values()].some((place) => isTransposed("parts" in place ? place.layer : place)),
    init_lora_weights: initNamed(options.init).peft,
    kasa_config: null,
    layer_replication: null,
    loftq_config: {},
    lora_alpha: options.alpha,
    lora_bias: options.loraBias,
    lora_dropout: options.dropout,
    lora_ga_config: null,
    megatron_config: null,
    megatron_core: "megatron.core",
    modules_to_save: null,
    monteclora_config: null,
    peft_type: "LORA",
    qalora_group_size: 16,
    r: options.rank,
    rank_pattern: options.rankPattern,
    target_modules: namesNoModule(options) ? (options.targets ?? null) : targetModules(options.targets, places),
    target_parameters: options.targetParameters.length > 0 ? options.targetParameters : null,
    trainable_token_indices: null,
    use_bdlora: null,
    use_qalora: false,
    use_rslora: options.rslora,
    velora_config: null,
    ...layerFields(options),
    ...variant,
  };
}

function isTransposed(place: LoraPlace): boolean {
  return "isTransposed" in place && place.isTransposed;
}

/** PEFT knows no parts of layers: the options of the same adapter on whole layers, each by its full name. */
function withoutParts(options: LoraOptions, places: ReadonlyMap<string, LoraPlace>): LoraOptions {
  const whole = [...places].flatMap(([name, place]) => ("parts" in place ? [[name, wholePair(place, options)] as const] : []));
  const [first] = whole;
  if (!first) return options;
  const { exclude: _exclude, layers: _layers, layersPattern: _pattern, ...rest } = options;
  const targets = [...places].filter(([, place]) => !("path" in place)).map(([name]) => name);
  const isUniform =
    whole.length === places.size && whole.every(([, { rank, alpha }]) => rank === first[1].rank && alpha === first[1].alpha);
  if (isUniform) return { ...rest, targets, ...first[1], rankPattern: {}, alphaPattern: {} };
  // The first pattern that fits counts, so the layers' own come first.
  const rankPattern = { ...Object.fromEntries(whole.map(([name, { rank }]) => [name, rank])), ...options.rankPattern };
  const alphaPattern = { ...Object.fromEntries(whole.map(([name, { alpha }]) => [name, alpha])), ...options.alphaPattern };
  return { ...rest, targets, rankPattern, alphaPattern };
}

/** True where only `targetParameters` say what is adapted. */
function namesNoModule({ targets, targetParameters }: LoraOptions): boolean {
  return targetParameters.length > 0 && (targets === undefined || (Array.isArray(targets) && targets.length === 0));
}

/** The options of a LoraConfig, or null where it describes another method. Throws AdapterError for values that are not understood. */
export function loraFromPeft(fields: PeftFields, variant: Variant): Partial<LoraOptions> | null {
  if (fields.peek("peft_type") !== "LORA" || (fields.peek("use_dora") ?? false) !== variant.use_dora) return null;
  fields.pass("peft_type", "use_dora");
  // These only matter together with an option that is refused when set; fan_in_fan_out follows from the layers themselves.
  fields.pass("megatron_core", "qalora_group_size", "fan_in_fan_out", "runtime_config");
  if (fields.peek("bias") === "none") fields.pass("bias");

  // What is not known stays, to be refused by name.
  const init = initOfPeft(fields.peek("init_lora_weights") ?? true);
  if (init) fields.pass("init_lora_weights");
  const eva = init === "eva" ? evaFromPeft(fields) : undefined;
  const parameters = fields.takeNames("target_parameters") ?? [];
  const isUnnamed = (fields.peek("target_modules") ?? null) === null;
  if (parameters.length > 0 && isUnnamed) fields.pass("target_modules");
  return {
    loraBias: fields.takeFlag("lora_bias"),
    targetParameters: typeof parameters === "string" ? [parameters] : parameters,
    rank: fields.takeNumber("r", 8),
    alpha: fields.takeNumber("lora_alpha", 8),
    dropout: fields.takeNumber("lora_dropout", 0),
    rslora: fields.takeFlag("use_rslora"),
    init: init ?? "kaiming",
    ...(eva && { eva }),
    rankPattern: fields.takeNumbers("rank_pattern"),
    alphaPattern: fields.takeNumbers("alpha_pattern"),
    ...(parameters.length > 0 && isUnnamed ? {} : takeTargets(fields)),
  };
}
