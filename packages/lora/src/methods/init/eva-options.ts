import * as z from "zod/mini";
import { AdapterError } from "../../errors.js";
import type { PeftFields } from "../../peft/fields.js";

/** How EVA looks at data; PEFT's EvaConfig. */
export interface EvaOptions {
  /** Up to this many times the rank may go to one layer; 1 leaves ranks equal. Default 2. */
  readonly rho: number;
  /** Components are taken as found when a batch turns none by more than this cosine. Default 0.99. */
  readonly tau: number;
  /** Divides components by the root of their singular values. Default false. */
  readonly whiten: boolean;
  /** Changes alpha with the rank, so that the scaling stays. Default true. */
  readonly adjustScaling: boolean;
}

/** Fills defaults in. Throws AdapterError for values out of range and for options that there are not. */
export function evaOptions(given: Partial<EvaOptions> = {}): EvaOptions {
  const { rho = 2, tau = 0.99, whiten = false, adjustScaling = true, ...rest } = given;
  const unknown = Object.keys(rest);
  if (unknown.length > 0) throw new AdapterError(`eva holds ${unknown.join(", ")}. It has rho, tau, whiten and adjustScaling.`, unknown);
  if (!(rho >= 1)) throw new AdapterError(`eva.rho is ${rho}. It is a number of at least 1; 1 leaves ranks equal.`, ["rho"]);
  if (!(tau >= 0 && tau <= 1)) throw new AdapterError(`eva.tau is ${tau}. It is a cosine from 0 to 1; 0.99 is usual.`, ["tau"]);
  return { rho, tau, whiten, adjustScaling };
}

/** PEFT's `eva_config`. Which tokens count is the caller's business here: runs carry a mask. */
export function evaToPeft({ rho, tau, whiten, adjustScaling }: EvaOptions): Readonly<Record<string, unknown>> {
  return { adjust_scaling_factors: adjustScaling, label_mask_value: -100, rho, tau, use_label_mask: true, whiten };
}

const evaSchema = z.strictObject({
  rho: z.optional(z.number()),
  tau: z.optional(z.number()),
  whiten: z.optional(z.boolean()),
  adjust_scaling_factors: z.optional(z.boolean()),
  use_label_mask: z.optional(z.boolean()),
  label_mask_value: z.optional(z.number()),
});

/** The options of PEFT's `eva_config`. Throws AdapterError for fields that are not known. */
export function evaFromPeft(fields: PeftFields): EvaOptions {
  const kind = "an object of PEFT's settings for EVA";
  const { rho, tau, whiten, adjust_scaling_factors } = fields.take("eva_config", evaSchema, kind, {});
  return evaOptions({
    ...(typeof rho === "number" && { rho }),
    ...(typeof tau === "number" && { tau }),
    ...(typeof whiten === "boolean" && { whiten }),
    ...(typeof adjust_scaling_factors === "boolean" && { adjustScaling: adjust_scaling_factors }),
  });
}
