import { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import { type Dispatch, groupedProduct } from "./grouped-product.js";

/** One projection of all experts: each block of rows times its expert's matrix. Its weight belongs to the module that it is made for, so that names are the checkpoint's. */
export class ExpertProjection extends nn.Module {
  readonly #owner: nn.Module;
  #dispatch: Dispatch | null = null;

  constructor(
    owner: nn.Module,
    /** The owner's property that holds the weight. */
    readonly key: string,
    readonly options: {
      readonly experts: number;
      readonly inFeatures: number;
      readonly outFeatures: number;
      /** The weight is [experts, in, out] instead of [experts, out, in]. */
      readonly isTransposed: boolean;
      /** The owner's property that holds the biases, [experts, out]. */
      readonly bias: string | null;
      /** What the layers of a single expert are called that are one here; none where no checkpoint has them. */
      readonly formerNames: readonly string[];
    },
  ) {
    super();
    this.#owner = owner;
  }

  /** [experts, out, in], or [experts, in, out] where transposed. */
  get weight(): Tensor {
    return Reflect.get(this.#owner, this.key) as Tensor;
  }

  get experts(): number {
    return this.options.experts;
  }

  get isTransposed(): boolean {
    return this.options.isTransposed;
  }

  get formerNames(): readonly string[] {
    return this.options.formerNames;
  }

  /** x [blocks, rows, in] → [blocks, rows, out]. */
  forward(x: Tensor, dispatch: Dispatch): Tensor {
    this.#dispatch = dispatch;
    return this.through(x, (input) => {
      const product = this.product(input, this.isTransposed ? this.weight : this.weight.t());
      const { bias } = this.options;
      if (bias === null) return product;
      const biases = Reflect.get(this.#owner, bias) as Tensor;
      return product.add(biases.gather(dispatch.experts, 0).unsqueeze(1));
    });
  }

  /** Each block of x [blocks, rows, k] times its expert's matrix of `stack` [experts, k, n], during the forward pass. */
  product(x: Tensor, stack: Tensor): Tensor {
    if (!this.#dispatch) throw new Error("ExpertProjection: there is no forward pass.");
    return groupedProduct(x, stack, this.#dispatch);
  }
}
