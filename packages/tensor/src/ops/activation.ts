import type { Tensor } from "../tensor/tensor.js";
import { div, maximum, mul } from "./elementwise.js";

/** 1 / (1 + e^−x). torch.sigmoid. */
export const sigmoid = (x: Tensor): Tensor => div(1, x.neg().exp().add(1));
/** max(x, 0). torch.relu. */
export const relu = (x: Tensor): Tensor => maximum(x, 0);
/** x · sigmoid(x) (Elfwing et al. 2017). torch.nn.functional.silu. */
export const silu = (x: Tensor): Tensor => x.div(x.neg().exp().add(1));
/** log(1 + e^x), without overflow. torch.nn.functional.softplus. */
export const softplus = (x: Tensor): Tensor => maximum(x, 0).add(x.abs().neg().exp().add(1).log());

/** x · Φ(x) (Hendrycks & Gimpel 2016): exact through erf, or the tanh approximation that GPT-2 uses. torch.nn.functional.gelu. */
export function gelu(x: Tensor, approximate: "none" | "tanh" = "none"): Tensor {
  if (approximate === "none") return mul(x, 0.5).mul(x.mul(Math.SQRT1_2).erf().add(1));
  const inner = x.add(x.mul(x).mul(x).mul(0.044715)).mul(Math.sqrt(2 / Math.PI));
  return mul(x, 0.5).mul(inner.tanh().add(1));
}
