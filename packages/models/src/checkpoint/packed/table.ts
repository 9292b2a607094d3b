import { awq } from "./awq.js";
import { bitsandbytes } from "./bitsandbytes.js";
import { float8 } from "./float8.js";
import { gptq } from "./gptq.js";
import type { DefineMethod } from "./method.js";
import { mlx } from "./mlx.js";
import { mxfp4 } from "./mxfp4.js";

/** The ways of storing quantised weights that are read, by `quant_method` of config.json; `mlx` is told by a `quantization` of its own. */
export const packingMethods: Readonly<Record<string, DefineMethod>> = {
  awq,
  bitsandbytes,
  fp8: float8,
  gptq,
  mlx,
  mxfp4,
};
