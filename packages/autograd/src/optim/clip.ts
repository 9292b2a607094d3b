import { full, minimum, sum, type Tensor } from "@lowrank/tensor";
import { spread } from "./spread.js";

/** √(Σ g²) over all elements of all tensors: a scalar. torch.nn.utils.get_total_norm. */
export function globalNorm(gradients: readonly Tensor[]): Tensor {
  const squares = gradients.map((gradient) => sum(gradient.cast("f32").square()));
  const [first, ...rest] = squares;
  if (!first) throw new RangeError("globalNorm: no gradients given. Pass at least one.");
  return rest.reduce((total, square) => total.add(square), first).sqrt();
}

/**
 * Gradients scaled by min(1, maxNorm / (‖g‖ + 1e-6)) (Pascanu et al. 2013). `norm` is ‖g‖ where the caller has it already.
 * torch.nn.utils.clip_grad_norm_, returned instead of in place.
 */
export function clipByGlobalNorm(gradients: readonly Tensor[], maxNorm: number, norm?: Tensor): Tensor[] {
  if (!(maxNorm > 0)) throw new RangeError(`clipByGlobalNorm: the largest norm is ${maxNorm}. Use a number above 0.`);
  if (gradients.length === 0) return [];
  const total = norm ?? globalNorm(gradients);
  const scale = spread(minimum(full([], maxNorm, { device: total.device }).div(total.add(1e-6)), 1));
  return gradients.map((gradient) => gradient.mul(scale(gradient.shape)));
}
