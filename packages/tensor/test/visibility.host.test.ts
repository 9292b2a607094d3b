import fc from "fast-check";
import { expect, it } from "vitest";
import { visibilityOf, visiblePairs } from "../src/kernels/visibility.js";

it("the pairs of a query and a key that it sees are as many as counting them one by one gives", () => {
  const sizes = fc.record({ queries: fc.integer({ min: 1, max: 20 }), earlier: fc.nat({ max: 20 }), isCausal: fc.boolean() });
  const rules = fc.record({ window: fc.option(fc.integer({ min: 1, max: 45 })), prefix: fc.nat({ max: 20 }) });
  const law = fc.property(sizes, rules, ({ queries, earlier, isCausal }, { window, prefix }) => {
    const keys = queries + earlier;
    const shown = Math.min(prefix, keys);
    const attributes = { isCausal, ...(isCausal && window !== null && { window }), ...(isCausal && { prefix: shown }) };
    let pairs = 0;
    for (let query = 0; query < queries; query++) {
      for (let key = 0; key < keys; key++) {
        const own = query + earlier;
        const isNear = key <= own && (window === null || key > own - window);
        if (!isCausal || isNear || key < shown) pairs++;
      }
    }
    expect(visiblePairs(visibilityOf(attributes, queries, keys))).toBe(pairs);
  });
  fc.assert(law, { numRuns: 200, seed: 1 });
});
