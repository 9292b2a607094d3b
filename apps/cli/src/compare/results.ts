import { z } from "zod";
import type { MethodResult, Quality } from "./measure.js";

/** Settings of a run, or of all of them. */
export const settingsSchema: z.ZodType<Readonly<Record<string, string | number | boolean | null>>> = z.record(
  z.string(),
  z.union([z.string(), z.number(), z.boolean(), z.null()]),
);

/** A measured number: JSON has null for one that is not a number. */
export const measured: z.ZodType<number> = z
  .number()
  .nullable()
  .transform((value) => value ?? Number.NaN);

const qualityFields = {
  evalLoss: measured,
  exactMatch: z.number().nullable(),
  generalLoss: measured,
  samples: z.array(z.object({ line: z.number(), prompt: z.string(), expected: z.string(), answer: z.string() })).exactOptional(),
};

/** base.json of a comparison. */
export const baseSchema: z.ZodType<Quality & Pick<MethodResult, "settings">> = z.object({ settings: settingsSchema, ...qualityFields });

/** A method's file of a comparison. */
export const methodSchema: z.ZodType<MethodResult> = z.object({
  method: z.string(),
  settings: settingsSchema,
  parameters: z.object({
    trainable: z.number(),
    frozen: z.number(),
    trainablePercent: measured,
    weightBytes: z.object({ trainable: z.number(), frozen: z.number() }),
    gradientBytes: z.number(),
    optimizerBytes: z.number(),
  }),
  peakBytes: z.number(),
  stepMs: measured,
  trainLoss: measured,
  decoding: z.object({
    baseMs: measured,
    methodMs: measured,
    ratio: measured,
    mergedMs: z.number().nullable(),
    mergedRatio: z.number().nullable(),
    whyNotMerged: z.string().nullable(),
    rounds: z.number(),
  }),
  contextTokens: z.number(),
  ...qualityFields,
});
