import { AdapterError } from "../../errors.js";
import type { AdaptableModel, DenseLayer } from "../../targeting/model.js";

/**
 * W − Q of a quantized layer, [out, in]: what quantization took from its weight, of which LoftQ (Li et al. 2023, algorithm 1) takes the best approximation as the
 * first pair. This is the algorithm's first step, peft's `loftq_iter` 1: further ones would need other blocks for the base. Rejects with AdapterError where the layer
 * is not quantized, or the model cannot say what its weight was.
 */
export async function quantizationResidual(
  layer: Pick<DenseLayer, "weight" | "isTransposed">,
  { name, model }: { readonly name: string; readonly model: AdaptableModel },
): Promise<Float32Array> {
  const { weight, isTransposed } = layer;
  const refuse = (fact: string, remedy: string): AdapterError =>
    new AdapterError(`init "loftq" starts from what quantization took from a weight, and ${fact}. ${remedy}`, [name]);
  if (!weight.packing) throw refuse(`${name} is not quantized`, 'Load the model with `quantize` (--quantize nf4), or use init "pissa".');
  const whole = await model.storedWeight?.(weight);
  if (!whole)
    throw refuse(`the weight of ${name} before that is not there`, "Load the unquantized checkpoint with `quantize` (--quantize nf4).");
  const quantized = await weight.data();
  const [rows = 0, columns = 0] = weight.shape;
  const rest = Float32Array.from(whole, (value, i) => value - (quantized[i] ?? 0));
  if (!isTransposed) return rest;
  return Float32Array.from(rest, (_, i) => rest[(i % rows) * columns + Math.floor(i / rows)] ?? 0);
}
