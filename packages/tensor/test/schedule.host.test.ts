import { compile, device, layerNorm, realize, type Tensor, tensor } from "@lowrank/tensor";
import fc from "fast-check";
import { expect, test } from "vitest";
import { agree, apply, type Build, cases } from "./graphs.js";
import { planInterpreter } from "./plan-interpreter.js";

async function planned(build: Build): Promise<ReturnType<typeof planInterpreter>> {
  const dev = planInterpreter();
  await agree(build, await device("reference"), dev);
  return dev;
}

/** The plan interpreter leaves these to the backends' own tests. */
const needsBackend = new Set(["unary functions", "gelu", "storage types", "large reduction", "more than 65,535 rows"]);

for (const [name, build] of Object.entries(cases))
  if (!needsBackend.has(name)) test(`planned ${name} = the reference`, async () => void (await planned(build)));

test("a softmax is one kernel", async () => {
  const { plans } = await planned((t) => t([8, 16]).softmax(-1));
  expect(plans.at(-1)?.kernels.length).toBe(1);
});

test("a layer norm is one kernel", async () => {
  const { plans } = await planned((t) => layerNorm(t([8, 16]), t([16]), t([16])));
  expect(plans.at(-1)?.kernels.length).toBe(1);
});

test("an assignment that reads each element where it writes it happens in place", async () => {
  const dev = planInterpreter();
  const p = tensor([1, 2, 3], { device: dev });
  const m = tensor([0, 0, 0], { device: dev });
  const step = compile((g: Tensor) => {
    m.assign(m.mul(0.5).add(g));
    p.assign(p.sub(m));
    return p.sum();
  });
  const g = tensor([1, 1, 1], { device: dev });
  expect(await step(g).item()).toBe(3);
  expect(await step(g).item()).toBe(-1.5);
  expect(await p.toArray()).toEqual([-1.5, -0.5, 0.5]);
  expect(dev.plans[0]?.kernels.some((kernel) => kernel.kind === "copy")).toBe(false);
});

test("a realized expression can be assigned to again before anything is read", async () => {
  const dev = planInterpreter();
  const p = tensor([1, 2], { device: dev }).mul(2);
  await realize(p);
  p.assign(p.add(1));
  p.assign(p.mul(10));
  expect(await p.toArray()).toEqual([30, 50]);
});

test("two tensors exchange their values in one transaction", async () => {
  const dev = planInterpreter();
  const a = tensor([1, 2], { device: dev });
  const b = tensor([3, 4], { device: dev });
  const [oldA, oldB] = [a.add(0.5), b.add(0.5)];
  const keepA = a.node;
  a.assign(b);
  b.assign(oldA.sub(0.5));
  await realize(a, b, oldB);
  expect(keepA.op).toBe("buffer");
  expect(await a.toArray()).toEqual([3, 4]);
  expect(await b.toArray()).toEqual([1, 2]);
  expect(await oldB.toArray()).toEqual([3.5, 4.5]);
});

/** Random expression graphs over a pool of shapes. */
const programs = fc.array(fc.tuple(fc.nat(15), fc.nat(1000), fc.nat(1000)), { minLength: 3, maxLength: 12 });

test("any graph = the reference interpreter", async () => {
  await fc.assert(
    fc.asyncProperty(programs, async (steps) => {
      await planned((t) => {
        const pool: Tensor[] = [t([3, 4]), t([4, 3]), t([3, 1]), t([2, 3, 4])];
        for (const [op, i, j] of steps) {
          const x = pool[i % pool.length] as Tensor;
          const y = pool[j % pool.length] as Tensor;
          pool.push(apply(op, x, y));
        }
        return pool.slice(-4).reduce((sum, x) => sum.add(x.tanh().sum()), t([1]).sum());
      });
    }),
    { numRuns: 200, seed: 42 },
  );
});
