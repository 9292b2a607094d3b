import { type Device, device, type Tensor } from "@lowrank/tensor";
import fc from "fast-check";
import { testBackend, testDevice } from "test-support";
import { beforeAll, test } from "vitest";
import { agree, apply, cases } from "./graphs.js";

let reference: Device;
let tested: Device;

beforeAll(async () => {
  reference = await device("reference");
  tested = await testDevice();
});

/** WGSL lets a compiler assume that there are no NaN and no infinities (section 15.7.2): x − x may become 0. */
const needsIeee = new Set(["NaN and infinities"]);

for (const [name, build] of Object.entries(cases)) {
  test.skipIf(needsIeee.has(name) && testBackend() !== "cpu")(`${name} = the float64 reference`, () => agree(build, reference, tested));
}

/** Random expression graphs over a pool of shapes. */
const programs = fc.array(fc.tuple(fc.nat(15), fc.nat(1000), fc.nat(1000)), { minLength: 3, maxLength: 10 });

test("any graph = the float64 reference", async () => {
  await fc.assert(
    fc.asyncProperty(programs, (steps) =>
      agree(
        (t) => {
          const pool: Tensor[] = [t([3, 4]), t([4, 3]), t([3, 1]), t([2, 3, 4])];
          for (const [op, i, j] of steps) pool.push(apply(op, pool[i % pool.length] as Tensor, pool[j % pool.length] as Tensor));
          return pool.slice(-4).reduce((sum, x) => sum.add(x.tanh().sum()), t([1]).sum());
        },
        reference,
        tested,
        // Values up to 1e6 pass through tanh and cancel in sums: f32 keeps about three digits of them.
        1e-2,
      ),
    ),
    { numRuns: 60, seed: 7 },
  );
});

test("an expression of more tensors than an adapter binds = the float64 reference", async () => {
  await agree(
    (t) => {
      const parts = Array.from({ length: 24 }, (_, i) => t([3, 4]).mul(i + 1));
      return parts.reduce((sum, part) => sum.mul(0.5).add(part.tanh()));
    },
    reference,
    tested,
  );
});
