import { type Device, fromStorage, realizeNow, Storage, sizeOf, type Tensor, tensor, zeros } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import type { DenseLayer } from "../targeting/model.js";
import { quantizationResidual } from "./init/loftq.js";
import type { Init } from "./init/table.js";
import type { PlaceContext } from "./method.js";

/** A tensor with memory and without values, for planning. */
export function outlined(device: Device, shape: readonly number[]): Tensor {
  return fromStorage(new Storage(device, "f32", sizeOf(shape)), shape);
}

/** W [out, in] in f32. */
async function wholeWeight({ weight, isTransposed }: PairLayer): Promise<Float32Array> {
  return Float32Array.from(await (isTransposed ? weight.t() : weight).cast("f32").data());
}

/** What a pair's values need of a layer. */
export type PairLayer = Pick<DenseLayer, "weight" | "inFeatures" | "outFeatures" | "isTransposed" | "isTraining">;

/**
 * A pair's tensors from first to last: those that the init gives at once, then those out of the weight or data. Where the init takes the
 * pair's first product out of the base (PiSSA, OLoRA), `start` is that first pair, a constant: the base's bytes stay as they are, and the
 * layer computes W x − s B0 A0 x in their place.
 */
export class PairValues {
  a: Tensor;
  b: Tensor;
  start: { readonly a: Tensor; readonly b: Tensor } | null = null;
  /** False until `initialize` has set values that need the weight or data. */
  isReady: boolean;

  constructor(
    readonly layer: PairLayer,
    readonly init: Init,
    public scaling: number,
    rank: number,
    readonly context: PlaceContext,
  ) {
    const { a, b } = init.first(context.generator, rank, layer.inFeatures, layer.outFeatures);
    this.a = a;
    this.b = b;
    this.isReady = !init.fromWeight && ((!init.needsData && !init.fromResidual) || context.isLoaded);
  }

  /** Throws AdapterError while the values are not there. */
  check(): void {
    if (this.isReady) return;
    const what = this.init.needsData
      ? "`await adapter.initialize({ runs })` with runs of the model on data"
      : "`await adapter.initialize()`";
    throw new AdapterError(`The adapter on ${this.context.name} has no first values yet: they come out of the base. Call ${what} first.`, [
      this.context.name,
    ]);
  }

  /** Values out of the base's weight. A loaded adapter keeps its own: only what was taken out of the base is found again. */
  async fromWeight(): Promise<void> {
    const { layer, init, scaling, context } = this;
    const factors = init.fromWeight ?? init.fromResidual;
    if (this.isReady || !factors) return;
    const { inFeatures, outFeatures } = layer;
    const rank = this.a.shape[0] ?? 0;
    const full = Math.min(inFeatures, outFeatures);
    if (rank > full) {
      throw new AdapterError(
        `init "${init.fromResidual ? "loftq" : String(init.peft)}" takes rank ${rank} out of the weight of ${context.name}, which has ${full} at most. Lower the rank, or use another init.`,
        [context.name],
      );
    }
    const weight = init.fromResidual ? await quantizationResidual(layer, context) : await wholeWeight(layer);
    const { a, b } = await factors({ weight, outFeatures, inFeatures, rank, scaling });
    const { device } = this.a;
    const start = {
      a: tensor(Float32Array.from(a), { device, shape: [rank, inFeatures] }),
      b: tensor(Float32Array.from(b), { device, shape: [outFeatures, rank] }),
    };
    if (!context.isLoaded) {
      this.a.assign(start.a);
      this.b.assign(start.b);
    }
    this.isReady = true;
    realizeNow([this.a, this.b, start.a, start.b]);
    if (init.fromWeight) this.start = start;
    else for (const value of [start.a, start.b]) value.dispose();
  }

  /** Stands in for first values where nothing has values. */
  outline(): void {
    const { a, b, init } = this;
    if (init.fromWeight && !this.start) this.start = { a: outlined(a.device, a.shape), b: outlined(b.device, b.shape) };
    this.isReady = true;
  }

  /** EVA's first values: A of another rank, or of the same one, and B 0. */
  takeComponents(a: Tensor, outFeatures: number, scaling: number): void {
    const rank = a.shape[0] ?? 0;
    if (rank === this.a.shape[0]) this.a.assign(a);
    else {
      this.a = a;
      this.b = zeros([outFeatures, rank], { device: a.device });
    }
    this.scaling = scaling;
    this.isReady = true;
  }

  /** W − s B0 A0 of a matrix [out, in]: what the trained pair is added to. */
  frozen(weight: Tensor): Tensor {
    return this.start ? weight.sub(this.start.b.matmul(this.start.a).mul(this.scaling)) : weight;
  }

  /** s (B A − B0 A0), [out, in] */
  delta(): Tensor {
    return this.frozen(this.b.matmul(this.a).mul(this.scaling));
  }

  /** The layer's forward with what was taken out of the base. */
  readonly base = (x: Tensor, next: (x: Tensor) => Tensor): Tensor => {
    this.check();
    if (!this.start) return next(x);
    return next(x).sub(x.matmul(this.start.a.t()).matmul(this.start.b.t()).mul(this.scaling));
  };
}
