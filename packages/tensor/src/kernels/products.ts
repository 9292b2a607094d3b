import type { AddedProduct, MatmulKernel } from "./kernel.js";

/** All products that a kernel adds up, its own first. */
export function productsOf({ k, a, b, plus = [] }: MatmulKernel): AddedProduct[] {
  return [{ k, a, b, factor: 1 }, ...plus];
}
