import { grad } from "@lowrank/autograd";
import { type Tensor, tensor } from "@lowrank/tensor";
import { expect } from "vitest";
import { values, weighted } from "./expressions.js";

const h = 1e-4;

/**
 * Compares gradients with central differences (L(x + h u) − L(x − h u)) / 2h along two directions u for each input, all in one float64
 * graph. Truncation is of the order h² = 1e-8 times the third derivative; reading rounds to f32.
 */
export async function agreesWithDifferences(
  loss: (inputs: readonly Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  tolerance = 2e-6,
): Promise<void> {
  const gradients = grad(loss(inputs), inputs);
  for (const [i, x] of inputs.entries()) {
    const gradient = gradients[i] as Tensor;
    expect(gradient.shape).toEqual(x.shape);
    expect(gradient.dtype).toBe("f32");
    for (const seed of [41, 42]) {
      const u = tensor(values(x.shape, seed), { shape: x.shape, device: x.device });
      const at = (step: number): Tensor => loss(inputs.map((input, j) => (j === i ? input.add(u.mul(step)) : input)));
      const difference = at(h)
        .sub(at(-h))
        .div(2 * h);
      const derivative = gradient.mul(u).sum();
      const scale = gradient.mul(u).abs().sum();
      const [want, got, size] = [await difference.item(), await derivative.item(), await scale.item()];
      expect(Math.abs(want - got), `input ${i}: ${got} instead of ${want}`).toBeLessThanOrEqual(tolerance * (1 + size));
    }
  }
}

/** The directional derivative Σ dL/dx · v as an expression, whose own gradient is a product with the Hessian. */
export function slope(loss: Tensor, inputs: readonly Tensor[]): Tensor {
  const parts = grad(loss, inputs).map((gradient, i) => weighted(gradient, 70 + i));
  return parts.reduce((total, part) => total.add(part));
}
