import { afterEach, describe, expect, it, vi } from "vitest";

/** Numbers that look random and are the same at each run. */
const numbers = (count: number, seed: number): Float64Array =>
  Float64Array.from({ length: count }, (_, i) => (Math.sin((i + seed) * 12.9898) * 43758.5453) % 1);

/** The module anew, so that nothing is kept from before. */
async function opened(isForbidden: boolean): Promise<typeof import("../src/backends/cpu/host-symmetric.js")> {
  vi.resetModules();
  const { CompileError, Memory } = WebAssembly;
  class Forbidden {
    constructor() {
      throw new CompileError("forbidden by the page's policy");
    }
  }
  if (isForbidden) vi.stubGlobal("WebAssembly", { CompileError, Memory, Module: Forbidden });
  return import("../src/backends/cpu/host-symmetric.js");
}

describe("the host's symmetric matrix", () => {
  afterEach(() => vi.unstubAllGlobals());

  it.each([false, true])("is updated by A − v wᵀ − w vᵀ and multiplied by x, without WebAssembly: %s", async (isForbidden) => {
    const { hostSymmetric } = await opened(isForbidden);
    // Larger and smaller by turns: what a thread keeps grows, and serves what needs less.
    for (const n of [1, 2, 3, 8, 33, 128, 5]) {
      for (const count of new Set([n, n - 1, n - (n % 2), 1, 0])) {
        const own = hostSymmetric(n);
        const a = numbers(n * n, 1);
        const [v, w, x] = [numbers(n, 2), numbers(n, 3), numbers(n, 4)];
        own.matrix.set(a);
        own.v.set(v);
        own.w.set(w);
        own.x.set(x);
        own.image.fill(7);
        own.update(count);
        const wanted = a.slice();
        const image = new Float64Array(n).fill(7).fill(0, 0, count);
        for (let row = 0; row < count; row++)
          for (let i = 0; i <= row; i++) {
            const value = (a[row * n + i] ?? 0) - (v[row] ?? 0) * (w[i] ?? 0) - (w[row] ?? 0) * (v[i] ?? 0);
            wanted[row * n + i] = value;
            image[row] = (image[row] ?? 0) + value * (x[i] ?? 0);
            if (i < row) image[i] = (image[i] ?? 0) + value * (x[row] ?? 0);
          }
        const worst = (found: Float64Array, want: Float64Array): number =>
          found.reduce((most, value, i) => Math.max(most, Math.abs(value - (want[i] ?? Number.NaN))), 0);
        // Two roundings of numbers below 3; and sums of as many products as there are columns.
        expect(worst(own.matrix, wanted), `matrix [${n}, ${n}], ${count} rows`).toBeLessThanOrEqual(1e-15);
        expect(worst(own.image, image), `image of ${count} of ${n} rows`).toBeLessThanOrEqual(1e-15 * Math.max(1, n));
      }
    }
  });

  it("takes what is not finite as the definition does", async () => {
    const { hostSymmetric } = await opened(false);
    const own = hostSymmetric(2);
    own.matrix.set([1, 0, Number.NaN, Number.POSITIVE_INFINITY]);
    for (const vector of [own.v, own.w]) vector.fill(0);
    own.x.fill(1);
    own.update(2);
    expect([...own.matrix]).toEqual([1, 0, Number.NaN, Number.POSITIVE_INFINITY]);
    expect([...own.image]).toEqual([Number.NaN, Number.NaN]);
  });
});
