import { AdapterError } from "../../errors.js";
import { beside } from "../../linalg/beside.js";
import type { HostMatrix } from "../../linalg/product.js";

/** A pair on the host, row by row. */
export interface Factors {
  /** [rank, in] */
  readonly a: Float64Array;
  /** [out, rank] */
  readonly b: Float64Array;
}

/** A weight [out, in] and the pair that is to start from it. */
export interface WeightStart {
  readonly weight: HostMatrix;
  readonly outFeatures: number;
  readonly inFeatures: number;
  readonly rank: number;
  readonly scaling: number;
}

/**
 * PiSSA (Meng et al. 2024, eq. 2–3): with W = U S Vᵀ, A = √(S/s) Vᵀ and B = U √(S/s) of the `rank` largest values, so that s B A is W's best
 * approximation of that rank. `passes`: of subspace iteration, where fast is better than exact ("pissa_niter_N"). Rejects with AdapterError for
 * a scaling that is not above 0.
 */
export async function pissa({ weight, outFeatures, inFeatures, rank, scaling }: WeightStart, passes?: number): Promise<Factors> {
  if (!(scaling > 0))
    throw new AdapterError(`PiSSA divides singular values by the scaling, which is ${scaling}. Use an alpha above 0.`, ["alpha"]);
  const { u, s, v } = await beside("svd", [weight, outFeatures, inFeatures, rank, passes], { rows: outFeatures, columns: inFeatures });
  const root = s.map((value) => Math.sqrt(value / scaling));
  const a = new Float64Array(rank * inFeatures);
  for (let k = 0; k < rank; k++) for (let i = 0; i < inFeatures; i++) a[k * inFeatures + i] = (v[i * rank + k] ?? 0) * (root[k] ?? 0);
  return { a, b: u.map((value, i) => value * (root[i % rank] ?? 0)) };
}
