import {
  CheckpointError,
  type Device,
  packedTensor,
  type QuantizedType,
  quantizedOutline,
  quantizedTypes,
  type Shape,
  sizeOf,
  type Tensor,
  typeForRows,
  type WeightQuantizer,
  weightQuantizer,
} from "@lowrank/tensor";
import type { ParameterSpec } from "./parameters.js";
import { shown } from "./schema.js";

/** What becomes of a model's parameters when its weights are quantized. */
export interface Quantization {
  /** The type of each parameter that is quantized, by name: weights of products, without the head. Others stay as they are. */
  readonly types: ReadonlyMap<string, QuantizedType>;
  /** Where another type than the one asked for was taken, a sentence each. */
  readonly warnings: readonly string[];
}

/** Throws CheckpointError for what is not a quantized type. `what` names the call. */
export function checkQuantizedType(type: unknown, what: string): asserts type is QuantizedType | null {
  if (type === null || (quantizedTypes as readonly unknown[]).includes(type)) return;
  throw new CheckpointError(`${what}: weights cannot be quantized to ${shown(type)}. Choose among ${quantizedTypes.join(", ")}.`, what);
}

/** How weights [..., rows, columns] are quantized: a dense layer's [in, out] as its transpose, so that what shares a scale belongs to one output. */
const rowsOf = ({ shape, isTransposed }: ParameterSpec): Shape => (isTransposed ? [...shape].reverse() : shape);

/**
 * Chooses which parameters are quantized, as bitsandbytes does: the weights of dense layers, and of experts, which transformers keeps as they are. Norms, biases,
 * embeddings, convolutions, routers and the head stay. `head`: the head's weight.
 */
export function quantizationOf(specs: ReadonlyMap<string, ParameterSpec>, head: string, type: QuantizedType): Quantization {
  const types = new Map<string, QuantizedType>();
  const others = new Map<string, number>();
  for (const [name, spec] of specs) {
    if (!spec.isProduct || name === head) continue;
    const columns = rowsOf(spec).at(-1) ?? 0;
    const own = typeForRows(type, columns);
    if (own !== null) types.set(name, own);
    if (own === type) continue;
    const fact = `with rows of ${columns}, no multiple of what ${type} needs, ${own === null ? "stay as they are stored" : `are ${own}`}`;
    others.set(fact, (others.get(fact) ?? 0) + 1);
  }
  const warnings = [...others].map(([fact, count]) => `quantize ${type}: ${count} ${count === 1 ? "weight" : "weights"} ${fact}.`);
  return { types, warnings };
}

/** Begins a parameter in a quantized type; its numbers come as checkpoints hold them. */
export function parameterQuantizer(type: QuantizedType, spec: ParameterSpec, device: Device, name: string): WeightQuantizer {
  const inner = weightQuantizer(type, rowsOf(spec), device, name);
  if (!spec.isTransposed) return inner;
  const [rows = 0, columns = 0] = spec.shape;
  const whole = new Float32Array(sizeOf(spec.shape));
  let at = 0;
  return {
    ...inner,
    add: (values) => {
      for (const value of values) {
        whole[(at % columns) * rows + Math.floor(at / columns)] = value;
        at++;
      }
    },
    finish: () => {
      inner.add(whole);
      return transposed(inner.finish());
    },
  };
}

/** The tensor that `parameterQuantizer` makes, without memory or values yet, for planning. */
export function parameterOutline(type: QuantizedType, spec: ParameterSpec, device: Device): Tensor {
  const outline = quantizedOutline(type, rowsOf(spec), device);
  return spec.isTransposed ? transposed(outline) : outline;
}

/** A packed matrix as its transpose, of the same parts. */
function transposed(packed: Tensor): Tensor {
  const { packing } = packed;
  if (!packing) throw new TypeError("A quantized weight is a packed tensor.");
  return packedTensor(packing.type, packing.parts, () => packed.t());
}
