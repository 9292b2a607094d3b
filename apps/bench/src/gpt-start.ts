// The first values of the GPT that every side trains, in the order of the family's parameters.
import { inputValues } from "./formula.js";

/** Sizes of a GPT and its batch. */
export interface StepShape {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly vocab: number;
  readonly batch: number;
  readonly length: number;
}

export const loraAlpha = 16;
const weightScale = 0.04;

export interface NamedValues {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array<ArrayBuffer>;
}

/** GPT-2's parameters by name without the leading "transformer."; matrices are [in, out]. */
export function gptStart({ layers, width, vocab, length, seed = 0 }: StepShape & { readonly seed?: number }): NamedValues[] {
  const block: readonly (readonly [string, readonly number[]])[] = [
    ["ln_1.weight", [width]],
    ["ln_1.bias", [width]],
    ["attn.c_attn.weight", [width, 3 * width]],
    ["attn.c_attn.bias", [3 * width]],
    ["attn.c_proj.weight", [width, width]],
    ["attn.c_proj.bias", [width]],
    ["ln_2.weight", [width]],
    ["ln_2.bias", [width]],
    ["mlp.c_fc.weight", [width, 4 * width]],
    ["mlp.c_fc.bias", [4 * width]],
    ["mlp.c_proj.weight", [4 * width, width]],
    ["mlp.c_proj.bias", [width]],
  ];
  const shapes: (readonly [string, readonly number[]])[] = [
    ["wte.weight", [vocab, width]],
    ["wpe.weight", [length, width]],
    ...Array.from({ length: layers }, (_, layer) => block.map(([name, shape]) => [`h.${layer}.${name}`, shape] as const)).flat(),
    ["ln_f.weight", [width]],
    ["ln_f.bias", [width]],
  ];
  return shapes.map(([name, shape], number) => {
    const count = shape.reduce((product, n) => product * n, 1);
    const isNorm = /(^|\.)ln_\w+\.weight$/.test(name);
    const values = isNorm ? new Float32Array(count).fill(1) : name.endsWith(".bias") ? new Float32Array(count) : null;
    return { name, shape, values: values ?? inputValues(count, number, seed, weightScale) };
  });
}

/** A [rank, width] and B [width, rank] of q and v of each layer, numbered after the model's own. */
export function loraStart({ layers, width, rank, seed = 0 }: StepShape & { readonly rank: number; readonly seed?: number }): NamedValues[] {
  const first = 2 + 12 * layers + 2;
  return Array.from({ length: layers }, (_, layer) =>
    (["q", "v"] as const).flatMap((part, i) => [
      {
        name: `h.${layer}.${part}.A`,
        shape: [rank, width],
        values: inputValues(rank * width, first + 4 * layer + 2 * i, seed, weightScale),
      },
      { name: `h.${layer}.${part}.B`, shape: [width, rank], values: new Float32Array(rank * width) },
    ]),
  ).flat();
}
