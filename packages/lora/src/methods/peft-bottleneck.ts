import * as z from "zod/mini";
import { AdapterError } from "../errors.js";
import type { PeftFields } from "../peft/fields.js";
import { type BottleneckOptions, type BottleneckPlace, bottleneckSizeOf } from "./bottleneck.js";

/**
 * The fields of a bottleneck adapter's adapter_config.json, in AdapterHub's words: `kind` (which method), `mh_adapter` and `output_adapter`
 * (at attention, at the MLP), `bottleneck_size`, `reduction_factor`, `non_linearity`, `scaling`, `input` (what it reads: "sublayer", "sum",
 * "residual", "norm"), and `is_parallel`, `original_ln_before`, which follow from `input`; `init_weights` for the record.
 */
export function bottleneckToPeft(
  kind: string,
  options: BottleneckOptions,
  places: ReadonlyMap<string, BottleneckPlace>,
): Readonly<Record<string, unknown>> {
  const [{ width } = { width: 0 }] = places.values();
  const { input } = options;
  return {
    bottleneck_size: bottleneckSizeOf(options, width),
    init_weights: options.init,
    input,
    is_parallel: input === "residual" || input === "norm",
    kind,
    mh_adapter: options.attention,
    non_linearity: options.activation,
    original_ln_before: input === "sum",
    output_adapter: options.mlp,
    peft_type: "BOTTLENECK",
    reduction_factor: width / bottleneckSizeOf(options, width),
    scaling: options.scaling,
  };
}

/** The options of such a file, or null where it describes another method. Throws AdapterError for values that are not understood. */
export function bottleneckFromPeft(kind: string, fields: PeftFields): Partial<BottleneckOptions> | null {
  if (fields.peek("peft_type") !== "BOTTLENECK" || fields.peek("kind") !== kind) return null;
  fields.pass("peft_type", "kind");
  const isParallel = fields.takeFlag("is_parallel");
  const isSum = fields.takeFlag("original_ln_before");
  const input = (fields.takeText("input") ?? (isParallel ? "residual" : isSum ? "sum" : "sublayer")) as BottleneckOptions["input"];
  if (isParallel !== (input === "residual" || input === "norm"))
    throw new AdapterError(
      `${fields.file}: is_parallel is ${isParallel} and input is "${input}", which contradict each other. Parallel adapters read "residual" or "norm"; correct one of them.`,
      ["is_parallel", "input"],
    );
  const bottleneckSize = fields.take<number | undefined>("bottleneck_size", z.number(), "a number", undefined);
  const reductionFactor = fields.take<number | undefined>("reduction_factor", z.number(), "a number", undefined);
  // What the names may be, `options` checks.
  const activation = fields.takeText("non_linearity") as BottleneckOptions["activation"] | null;
  const init = fields.takeText("init_weights") as BottleneckOptions["init"] | null;
  return {
    attention: fields.takeFlag("mh_adapter"),
    mlp: fields.takeFlag("output_adapter"),
    scaling: fields.takeNumber("scaling", 1),
    input,
    ...(bottleneckSize !== undefined && { bottleneckSize }),
    ...(reductionFactor !== undefined && { reductionFactor }),
    ...(activation !== null && { activation }),
    ...(init !== null && { init }),
  };
}
