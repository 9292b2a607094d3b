import * as z from "zod/mini";
import { field } from "../schema.js";

/** [least, most] of a Mamba's time steps, where infinity is what transformers 5 writes for it. */
export function timeStepLimit(): z.ZodMiniType<readonly [number, number], unknown> {
  return z.pipe(
    z.transform((value: unknown): unknown => (Array.isArray(value) ? value.map(numberOf) : (value ?? [0, Number.POSITIVE_INFINITY]))),
    field<readonly [number, number]>(
      "two numbers, the least and the largest",
      (value) => Array.isArray(value) && value.length === 2 && value.every((item) => typeof item === "number" && !Number.isNaN(item)),
    ),
  );
}

function numberOf(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  return Number((value as { readonly __float__?: unknown }).__float__);
}
