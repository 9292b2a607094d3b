import type { Tensor } from "../graph/tensor.js";
import { defineComposite } from "./composite.js";
import { div, maximum, minimum, mul } from "./elementwise.js";

/** 1 / (1 + eˣ). Beyond x = 80 the exponential stays finite, and with it the gradient: 0 there. */
const falling = (x: Tensor): Tensor => div(1, minimum(x, 80).exp().add(1));

/** 1 / (1 + e^−x). torch.sigmoid. */
export const sigmoid = (x: Tensor): Tensor => falling(x.neg());
/** max(x, 0). torch.relu. */
export const relu = (x: Tensor): Tensor => maximum(x, 0);
/** x · sigmoid(x) (Elfwing et al. 2017). torch.nn.functional.silu. */
export const silu = (x: Tensor): Tensor => x.mul(sigmoid(x));
/** log(1 + e^x), without overflow. torch.nn.functional.softplus. */
export const softplus = (x: Tensor): Tensor => maximum(x, 0).add(x.abs().neg().exp().add(1).log());

/** x · Φ(x) (Hendrycks & Gimpel 2016): exact through erf, or the tanh approximation that GPT-2 uses. torch.nn.functional.gelu. */
export function gelu(x: Tensor, approximate: "none" | "tanh" = "none"): Tensor {
  return recordGelu([x], { approximate })[0] as Tensor;
}

const recordGelu = defineComposite("gelu", {
  outputs: ([shape = []]) => [{ shape, dtype: "f32" }],
  isElementwise: true,
  decompose: ([x], { approximate }) => (x ? [approximate === "none" ? geluByErf(x) : geluByTanh(x)] : []),
});

const geluByErf = (x: Tensor): Tensor => mul(x, 0.5).mul(x.mul(Math.SQRT1_2).erf().add(1));

function geluByTanh(x: Tensor): Tensor {
  // ½ (1 + tanh z) = sigmoid(2 z), z = √(2/π) (x + 0.044715 x³): cheaper than tanh, and it does not cancel where the result is small.
  // The sign of −2 z lies in the constants.
  const scale = -2 * Math.sqrt(2 / Math.PI);
  return x.mul(
    falling(
      x.mul(
        x
          .mul(x)
          .mul(0.044715 * scale)
          .add(scale),
      ),
    ),
  );
}
