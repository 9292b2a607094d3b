import { compile, device, dynamicUpdateSlice, layerNorm, realize, Tensor, tensor } from "@lowrank/tensor";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { SingleKernel } from "../src/kernels/kernel.js";
import { boundOf } from "../src/kernels/template.js";
import { layOut } from "../src/schedule/layout.js";
import { ordered } from "../src/schedule/order.js";
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

test.each([
  ["stores the update alone, after what reads the old contents", (_: Tensor, next: Tensor) => next.sum(), 0],
  ["is there before what reads the new contents", (_: Tensor, next: Tensor) => next.square(), 0],
  ["keeps a copy for what needs the old contents and the new", (state: Tensor, next: Tensor) => state.mul(next), 1],
  ["is copied out where it is also a result", (_: Tensor, next: Tensor) => next, 1],
])("an update of a part, assigned to what it is a part of, %s", async (_name, result, copyCount) => {
  const dev = planInterpreter();
  const state = tensor([1, 2, 3, 4, 5], { device: dev });
  const step = compile((update: Tensor, at: Tensor) => {
    const before = new Tensor(state.node, dev);
    const sum = before.sum();
    const first = dynamicUpdateSlice(state, update.mul(2), at);
    const next = dynamicUpdateSlice(first, update, at.sub(1));
    state.assign(next);
    return [result(before, next), sum];
  });
  const [, sum] = step(tensor([10, 20], { device: dev }), tensor([3], { device: dev, dtype: "i32" }));
  expect(await sum?.item()).toBe(15);
  expect(await state.toArray()).toEqual([1, 2, 10, 20, 40]);
  const kernels = (dev.plans.at(-1)?.kernels ?? []).flatMap((kernel) => (kernel.kind === "group" ? kernel.members : [kernel]));
  expect(kernels.filter((kernel) => kernel.kind === "copy").length).toBe(copyCount);
  expect(kernels.some((kernel) => kernel.kind === "loop" && kernel.over)).toBe(false);
});

test("what many tensors become by the same rule is computed by a few kernels", async () => {
  const dev = planInterpreter();
  const count = 20;
  const values = Array.from({ length: count }, (_, i) =>
    tensor(
      Array.from({ length: i + 2 }, (_, j) => i + j),
      { device: dev },
    ),
  );
  const momenta = values.map((p) => tensor(new Array(p.size).fill(0), { device: dev }));
  const rate = tensor(1, { device: dev });
  const step = compile((g: Tensor) => {
    rate.assign(rate.mul(0.5));
    for (const [i, p] of values.entries()) {
      const m = momenta[i] as Tensor;
      const next = m.mul(0.5).add(g.mul(p));
      m.assign(next);
      p.assign(p.sub(next.mul(rate.sqrt())));
    }
    return g.add(1);
  });
  for (const g of [1, 2]) await step(tensor(g, { device: dev })).item();
  for (const [i, p] of values.entries()) {
    const wanted = Array.from({ length: i + 2 }, (_, j) => {
      let [x, m] = [i + j, 0];
      for (const [t, g] of [1, 2].entries()) {
        m = m * 0.5 + g * x;
        x -= m * Math.sqrt(0.5 ** (t + 1));
      }
      return x;
    });
    for (const [j, x] of ((await p.toArray()) as number[]).entries()) expect(x).toBeCloseTo(wanted[j] ?? Number.NaN, 4);
  }
  // The rate and its root; all momenta and values.
  expect(dev.plans[0]?.kernels.length).toBe(2);
});

test("elementwise kernels over the same axes become one, and what only they need is not stored", async () => {
  const { plans } = await planned((t) => {
    const x = t([4, 6]);
    const shared = x.exp().mul(x.sin());
    return shared.mul(2).sum(0).add(shared.tanh().sum(0));
  });
  expect(plans.at(-1)?.kernels.length).toBeLessThanOrEqual(2);
});

test("a result that is read between two kernels that share an operand is there in time", async () => {
  await planned((t) => {
    const x = t([4, 4]);
    const first = x.exp().mul(x.cos());
    const product = first.matmul(first);
    const second = x.sin().mul(x.cos().exp());
    return product.add(second.matmul(x)).add(first).add(second.mul(first));
  });
});

test("a kernel that frees more than it takes runs as soon as it can", () => {
  const slot = (elementCount: number, binding: number | null = null) => ({ dtype: "f32", elementCount, binding }) as const;
  const slots = [slot(1, 0), slot(1000), slot(1000), slot(1), slot(1), slot(1, 1)];
  const copy = (from: number, to: number): SingleKernel => ({ kind: "copy", bytes: 4, from, to });
  const both: SingleKernel = { kind: "scatterAdd", rows: 1, width: 1, count: 1, indices: 3, updates: 4, out: 5 };
  const given = [copy(0, 1), copy(0, 2), copy(1, 3), copy(2, 4), both].map((kernel) => boundOf(kernel, () => "f32"));
  const { kernels } = ordered({ slots, kernels: given });
  expect(kernels).toEqual([0, 2, 1, 3, 4].map((i) => given[i]));
  const bytes = (order: typeof given): number =>
    layOut(
      order.map((kernel) => [kernel]),
      slots,
    ).arenaBytes;
  expect(bytes(kernels)).toBeLessThan(bytes(given));
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

test("products that are only added up are one kernel, whatever else is added", async () => {
  const { plans } = await planned((t) => {
    const x = t([6, 8]);
    const low = x.matmul(t([8, 2])).matmul(t([2, 5]));
    return x
      .matmul(t([8, 5]))
      .add(t([5]))
      .add(low.mul(0.5))
      .add(t([6, 5]))
      .mul(2);
  });
  const kernels = plans.at(-1)?.kernels ?? [];
  expect(kernels.map((kernel) => kernel.kind)).toEqual(["matmul", "matmul"]);
  const [, sum] = kernels;
  expect(sum?.kind === "matmul" && [sum.k, sum.plus?.map(({ k, factor }) => [k, factor])]).toEqual([8, [[2, 0.5]]]);
});

test("a product over columns put side by side stores nothing for their sake, unless something else reads them", async () => {
  const beside = (t: Parameters<Build>[0]): Tensor => {
    const part = (before: number): Tensor =>
      t([2, 5, 3])
        .transpose(0, 1)
        .pad([
          [0, 0],
          [0, 0],
          [before, 3 - before],
        ]);
    return part(0).add(part(3));
  };
  const alone = await planned((t) => beside(t).matmul(t([6, 4])));
  expect(alone.plans.at(-1)?.kernels.some((kernel) => kernel.kind === "matmul" && kernel.plus?.length === 1)).toBe(true);
  const shared = await planned((t) => {
    const joint = beside(t);
    return joint
      .matmul(t([6, 4]))
      .sum()
      .add(joint.exp().sum());
  });
  expect(shared.plans.at(-1)?.kernels.some((kernel) => kernel.kind === "matmul" && kernel.plus)).toBe(false);
});

test("any sum of products = the reference", async () => {
  const leaf = fc.record({
    k: fc.integer({ min: 1, max: 6 }),
    factor: fc.constantFrom(1, 1, 0.5, -3),
    kind: fc.integer({ min: 0, max: 5 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(leaf, { minLength: 2, maxLength: 6 }), fc.integer({ min: 1, max: 4 }), async (leaves, m) => {
      await planned((t) => {
        let seen: Tensor | null = null;
        const terms = leaves.map(({ k, factor, kind }): Tensor => {
          if (kind === 0) return t([m, 3]);
          const wide = t([m, k]).pad([
            [0, 0],
            [1, kind],
          ]);
          const other = t([m, kind]).pad([
            [0, 0],
            [k + 1, 0],
          ]);
          const left = kind === 1 ? t([m, k]) : kind === 2 ? wide : wide.add(other);
          const product = left.matmul(t([left.sizeAt(1), 3])).mul(factor);
          if (kind === 5) seen = seen ? seen.add(product) : product;
          return product;
        });
        const sum = terms.reduce((a, b) => a.add(b));
        return seen ? sum.mul(seen) : sum;
      });
    }),
    { numRuns: 60 },
  );
});

test("what a later kernel computes of a product alone is computed where the product is, if its costly part is there anyway", async () => {
  const graph =
    (isReadElsewhere: boolean): Build =>
    (t) => {
      const before = t([6, 8])
        .matmul(t([8, 5]))
        .reshape([2, 3, 5])
        .add(t([5]));
      const power = before.exp();
      const value = before.div(power.add(1));
      const dy = value
        .reshape([6, 5])
        .matmul(t([5, 4]))
        .tanh()
        .matmul(t([4, 5]))
        .reshape([2, 3, 5]);
      const gradient = dy.mul(power.mul(value).add(power));
      return isReadElsewhere ? gradient.add(before) : gradient;
    };
  const { plans } = await planned(graph(false));
  expect(plans.at(-1)?.names).toEqual(["matmul_6x8x5_add_exp_div_mul", "matmul_6x5x4_tanh", "matmul_6x4x5_mul"]);
  const { plans: others } = await planned(graph(true));
  expect(others.at(-1)?.names.at(-1)).toContain("exp");
});
