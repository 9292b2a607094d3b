import * as z from "zod/mini";
import type { PeftFields } from "../peft/fields.js";
import { takeTargets } from "../peft/targets.js";
import type { DenseLayer } from "../targeting/model.js";
import type { AdaloraOptions } from "./adalora.js";
import { loraToPeft } from "./peft-lora.js";
import type { TripletAttachment } from "./rank-allocation.js";

/** What follows a module's name in `rank_pattern`. */
const ending = ".lora_E";

/** AdaLoraConfig of PEFT 0.21, every field: LoraConfig's, most of them unused, and its own. */
export function adaloraToPeft(
  options: AdaloraOptions,
  places: ReadonlyMap<string, DenseLayer>,
  attachments: ReadonlyMap<string, TripletAttachment>,
): Readonly<Record<string, unknown>> {
  const unused = {
    rank: 8,
    loraBias: false,
    targetParameters: [],
    rslora: false,
    init: "kaiming",
    eva: {},
    rankPattern: {},
    alphaPattern: {},
  } as const;
  return {
    ...loraToPeft({ ...options, ...unused }, places, { use_dora: false }),
    peft_type: "ADALORA",
    beta1: options.beta1,
    beta2: options.beta2,
    deltaT: options.interval,
    init_r: options.initRank,
    orth_reg_weight: options.orthogonality,
    rank_pattern: rankPattern(options, attachments),
    target_r: options.targetRank,
    tfinal: options.finalSteps,
    tinit: options.initialSteps,
    total_step: options.totalSteps,
  };
}

/** Which triplets are left, by module; null where none was taken. */
function rankPattern(
  { kept: loaded }: AdaloraOptions,
  attachments: ReadonlyMap<string, TripletAttachment>,
): Readonly<Record<string, readonly boolean[]>> | null {
  const current = [...attachments].map(([place, { kept }]) => [place, kept] as const);
  const isCut = current.some(([, kept]) => kept.includes(false));
  const patterns = isCut ? current : loaded ? Object.entries(loaded) : null;
  return patterns && Object.fromEntries(patterns.map(([place, kept]) => [place + ending, kept]));
}

/** The options of an AdaLoraConfig, or null where it describes another method. Throws AdapterError for values that are not understood. */
export function adaloraFromPeft(fields: PeftFields): Partial<AdaloraOptions> | null {
  if (fields.peek("peft_type") !== "ADALORA") return null;
  // PEFT reads none of these for AdaLoRA, or only together with an option that is refused when set.
  fields.pass("peft_type", "r", "use_rslora", "megatron_core", "qalora_group_size", "fan_in_fan_out", "runtime_config");
  if (typeof fields.peek("init_lora_weights") === "boolean") fields.pass("init_lora_weights");
  if (fields.peek("bias") === "none") fields.pass("bias");
  const patterns = fields.take<Readonly<Record<string, readonly boolean[]>> | null>(
    "rank_pattern",
    z.record(z.string(), z.array(z.boolean())),
    "lists of truth values",
    null,
  );
  const kept = patterns && Object.entries(patterns).map(([name, pattern]) => [moduleOf(name), pattern] as const);
  return {
    initRank: fields.takeNumber("init_r", 12),
    targetRank: fields.takeNumber("target_r", 8),
    alpha: fields.takeNumber("lora_alpha", 8),
    dropout: fields.takeNumber("lora_dropout", 0),
    totalSteps: fields.takeNumber("total_step", 0),
    initialSteps: fields.takeNumber("tinit", 0),
    finalSteps: fields.takeNumber("tfinal", 0),
    interval: fields.takeNumber("deltaT", 1),
    beta1: fields.takeNumber("beta1", 0.85),
    beta2: fields.takeNumber("beta2", 0.85),
    orthogonality: fields.takeNumber("orth_reg_weight", 0.5),
    ...(kept && kept.length > 0 && { kept: Object.fromEntries(kept) }),
    ...takeTargets(fields),
  };
}

function moduleOf(name: string): string {
  return name.endsWith(ending) ? name.slice(0, -ending.length) : name;
}
