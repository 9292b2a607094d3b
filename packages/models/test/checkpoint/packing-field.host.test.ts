import { expect, test } from "vitest";
import { splitPacking } from "../../src/checkpoint/packing-field.js";

const awq = { quant_method: "awq", bits: 4 };
const mlx = { bits: 4, group_size: 64 };

test.each<[name: string, config: Readonly<Record<string, unknown>>, packing: unknown, rest: Readonly<Record<string, unknown>>]>([
  ["nothing", { a: 1 }, null, { a: 1 }],
  ["of the whole model", { a: 1, quantization_config: awq }, { name: "awq", options: awq }, { a: 1 }],
  ["of mlx-lm, twice", { quantization: mlx, quantization_config: mlx }, { name: "mlx", options: mlx }, {}],
  ["of the text model", { text_config: { b: 2, quantization_config: awq } }, { name: "awq", options: awq }, { text_config: { b: 2 } }],
  ["of mlx-lm, of the text model", { text_config: { b: 2, quantization: mlx } }, { name: "mlx", options: mlx }, { text_config: { b: 2 } }],
  [
    "of both, where the whole model's counts",
    { quantization_config: awq, text_config: { quantization: mlx } },
    { name: "awq", options: awq },
    { text_config: {} },
  ],
  [
    "of bitsandbytes before it had a name",
    { quantization_config: { load_in_8bit: true } },
    { name: "bitsandbytes", options: { load_in_8bit: true } },
    {},
  ],
])("a config says %s", (_, config, packing, json) => {
  expect(splitPacking(config, "config.json")).toEqual({ json, packing });
});
