import { type Generator, type Tensor, zeros } from "@lowrank/tensor";
import * as z from "zod/mini";
import { AdapterError, NotApplicableError } from "../errors.js";
import type { PeftFields } from "../peft/fields.js";
import type { AdaptableModel } from "../targeting/model.js";
import { dense, throughDense } from "./encoder.js";
import type { Method } from "./method.js";
import {
  checkSize,
  occupying,
  onlyPlace,
  plainSource,
  type VirtualTokenOptions,
  type VirtualTokenPlace,
  type VirtualTokenSource,
  virtualTokenCount,
  virtualTokenMethod,
  virtualTokenPlace,
  virtualTokensFromPeft,
  virtualTokensToPeft,
} from "./virtual-tokens.js";

/** How a prefix is set up. Names in parentheses are PEFT's. */
export interface PrefixOptions extends VirtualTokenOptions {
  /** Trains a narrow table and a two-layer perceptron that widens it (`prefix_projection`; section 4.3 of the paper). Default false. */
  readonly projection: boolean;
  /** Inner size of the perceptron (`encoder_hidden_size`). Default: the width of a layer's keys. */
  readonly encoderSize: number;
  /** First values (`init_weights`): "normal" with deviation 1 as PEFT, or "zero", keys and values that are 0. Default "normal". */
  readonly init: "normal" | "zero";
}

/** Sizes of every layer's keys. Throws NotApplicableError where layers differ, or keep something else. */
function keysOf({ keys }: VirtualTokenPlace): NonNullable<VirtualTokenPlace["keys"]> {
  if (keys) return keys;
  throw new NotApplicableError(
    "A prefix stands in front of the keys and values of every layer, and this model has layers without them, or of several sizes. Use prompt, or a method that goes on layers.",
  );
}

/** Entries of a layer's keys at one position: with grouped queries fewer than the model's width. */
function keyWidth(place: VirtualTokenPlace): number {
  const { kvHeads, headDim } = keysOf(place);
  return kvHeads * headDim;
}

/** Defaults and checks of a prefix. Throws AdapterError. */
export function prefixOptions(given: Partial<PrefixOptions>, model: AdaptableModel): PrefixOptions {
  const { projection = false, encoderSize = keyWidth(virtualTokenPlace(model)), init = "normal" } = given;
  checkSize("encoderSize", encoderSize);
  if (init !== "normal" && init !== "zero") throw new AdapterError(`init is "${String(init)}". Use "normal" or "zero".`, ["init"]);
  return { virtualTokens: virtualTokenCount(given.virtualTokens, model), projection, encoderSize, init };
}

/** A table of all layers' keys and values, [virtualTokens, layers · 2 · keyWidth]. */
function table(place: VirtualTokenPlace, { virtualTokens, init }: PrefixOptions, generator: Generator): VirtualTokenSource {
  const shape = [virtualTokens, place.layers * 2 * keyWidth(place)];
  return plainSource(init === "zero" ? zeros(shape, { device: generator.device }) : generator.normal(shape));
}

/** P' [virtualTokens, keyWidth] through the perceptron: P = W2 tanh(W1 P' + b1) + b2. PEFT's PrefixEncoder. */
function projected(place: VirtualTokenPlace, options: PrefixOptions, generator: Generator): VirtualTokenSource {
  const width = keyWidth(place);
  const last = dense("prompt_encoder.transform.2", options.encoderSize, place.layers * 2 * width, generator);
  const parameters = {
    "prompt_encoder.embedding.weight": generator.normal([options.virtualTokens, width]),
    ...dense("prompt_encoder.transform.0", width, options.encoderSize, generator),
    ...(options.init === "zero" ? Object.fromEntries(Object.entries(last).map(([name, value]) => [name, zerosLike(value)])) : last),
  };
  return {
    parameters,
    values: () => {
      const inner = throughDense(parameters, "prompt_encoder.transform.0", parameters["prompt_encoder.embedding.weight"]).tanh();
      return throughDense(parameters, "prompt_encoder.transform.2", inner);
    },
  };
}

function zerosLike({ shape, device }: Tensor): Tensor {
  return zeros(shape, { device });
}

/** Keys and values of each layer, [1, kvHeads, virtualTokens, headDim]: block 2i of a row are layer i's keys, block 2i + 1 its values. */
function perLayer(values: Tensor, place: VirtualTokenPlace): { readonly keys: Tensor; readonly values: Tensor }[] {
  const { layers } = place;
  const { kvHeads, headDim } = keysOf(place);
  const width = keyWidth(place);
  const block = (index: number): Tensor =>
    values
      .narrow(1, index * width, width)
      .reshape([1, values.sizeAt(0), kvHeads, headDim])
      .permute([0, 2, 1, 3]);
  return Array.from({ length: layers }, (_, layer) => ({ keys: block(2 * layer), values: block(2 * layer + 1) }));
}

/** A method whose virtual tokens are keys and values in front of each layer's own, and whose file is PEFT's of prefix tuning. */
export function prefixMethod(
  name: string,
  options: Method<PrefixOptions, VirtualTokenPlace>["options"],
  fromPeft: (fields: PeftFields) => Partial<PrefixOptions> | null,
): Method<PrefixOptions, VirtualTokenPlace> {
  return virtualTokenMethod(name, {
    options,
    source: (place, chosen, { generator, isLoaded }) =>
      chosen.projection && !isLoaded ? projected(place, chosen, generator) : table(place, chosen, generator),
    enable: (place, { virtualTokens: length }, values) =>
      occupying(place.slots, "prefix", { length, layers: () => perLayer(values(), place) }),
    toPeft: (chosen, places) => {
      const place = onlyPlace(places);
      return {
        ...virtualTokensToPeft(chosen, place, keyWidth(place), keysOf(place).kvHeads),
        encoder_hidden_size: chosen.encoderSize,
        init_weights: chosen.init === "zero" ? "zero" : null,
        peft_type: "PREFIX_TUNING",
        prefix_projection: chosen.projection,
      };
    },
    fromPeft,
  });
}

/**
 * Prefix tuning (Li & Liang 2021, eq. 3): learned keys and values stand in front of each layer's own and every position attends to them;
 * rotary positions do not turn them. The text's positions begin after them. At the start the prefix is random and the output is not the base's.
 * A file holds the keys and values, not what projected them, as PEFT's.
 */
export const prefix: Method<PrefixOptions, VirtualTokenPlace> = prefixMethod("prefix", prefixOptions, (fields) => {
  if (fields.peek("peft_type") !== "PREFIX_TUNING") return null;
  const { virtualTokens } = virtualTokensFromPeft(fields);
  const isZero = fields.peek("init_weights") === "zero";
  if (isZero) fields.pass("init_weights");
  const encoderSize = fields.take<number | undefined>("encoder_hidden_size", z.number(), "a number", undefined);
  return {
    virtualTokens,
    projection: fields.takeFlag("prefix_projection"),
    init: isZero ? "zero" : "normal",
    ...(encoderSize !== undefined && { encoderSize }),
  };
});
