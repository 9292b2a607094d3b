// Planning grows no faster than n log n with the nodes of any graph: what it looks at is counted, not its seconds.
import {
  device,
  dynamicUpdateSlice,
  Generator,
  type PlannedFor,
  planningDevice,
  realize,
  realizeNow,
  type Tensor,
  tensor,
} from "@lowrank/tensor";
import fc from "fast-check";
import { expect, test } from "vitest";
import { work } from "../src/schedule/work.js";

/** Plans for the cpu backend, or for a device that binds eight buffers to a kernel. */
async function planned(like: PlannedFor, build: (t: (...values: number[]) => Tensor) => readonly Tensor[]): Promise<typeof work> {
  const { device: dev } = planningDevice(like);
  const results = build((...values) => tensor(values, { device: dev }));
  const before = { ...work };
  await realize(...results);
  return {
    nodes: work.nodes - before.nodes,
    kernels: work.kernels - before.kernels,
    lowered: work.lowered - before.lowered,
    joined: work.joined - before.joined,
  };
}

const cpu = await device("cpu");
const few: PlannedFor = {
  name: "cpu",
  description: "few bindings",
  backend: { name: "cpu", limits: { maxBufferBytes: 2 ** 31, budgetBytes: 2 ** 33, maxBindings: 8 }, supports: () => false },
};

const graphs: Readonly<Record<string, (n: number, t: (...values: number[]) => Tensor) => readonly Tensor[]>> = {
  "a chain of mul and add": (n, t) => [repeated(n, t(1, 2), (x) => x.mul(1.0001).add(0.1))],
  "x = x.add(x)": (n, t) => [repeated(n, t(1, 2).cast("i32"), (x) => x.add(x))],
  "x = x.add(x) before a gather": (n, t) => [t(5, 6, 7).gather(repeated(n, t(0, 1).cast("i32"), (x) => x.add(x)))],
  "a sum of many tensors": (n, t) => [wide(n, t).reduce((sum, x) => sum.add(x.sin()))],
  "many results of one tensor": (n, t) => {
    const x = t(1, 2, 3).exp();
    return Array.from({ length: n / 8 }, (_, i) => x.mul((i % 3) + 1).add(1));
  },
  "sums of one tensor, all added": (n, t) => {
    const x = t(1, 2, 3).exp();
    return [Array.from({ length: n / 8 }, () => x.mul(2).sum()).reduce((sum, y) => sum.add(y))];
  },
  "a chain of products": (n, t) => [repeated(n / 4, t(1, 2, 3, 4).reshape([2, 2]), (x) => x.matmul(t(1, 0, 0, 1).reshape([2, 2])).tanh())],
  "a chain of softmaxes": (n, t) => [repeated(n / 8, t(1, 2, 3, 4).reshape([2, 2]), (x) => x.softmax(-1).mul(2))],
  "parts of a chain": (n, t) => [repeated(n / 2, t(1, 2, 3, 4), (x) => x.mul(1.5).add(x.narrow(0, 0, 1).expand([4])))],
  "casts there and back": (n, t) => [repeated(n, t(1, 2), (x) => x.cast(x.dtype === "f32" ? "i32" : "f32"))],
  "updates of many tensors whose old contents are read as well": (n, t) => {
    const start = t(1).cast("i32");
    return Array.from({ length: n / 8 }, (_, i) => {
      const x = t(1, 2, 3, 4);
      const old = x.mul(2);
      x.assign(dynamicUpdateSlice(x, t(i), start));
      return old;
    });
  },
  "draws of one shape, each of a stream of its own": (n, t) => {
    const generator = new Generator(t(0).device, 1);
    return Array.from({ length: n / 4 }, () => generator.uniform([4]).less(0.5));
  },
  "views of views": (n, t) => [repeated(n / 4, t(1, 2, 3, 4, 5, 6).reshape([2, 3]), (x) => x.permute([1, 0]).reshape([2, 3]))],
};

function repeated(n: number, x: Tensor, step: (x: Tensor) => Tensor): Tensor {
  let result = x;
  for (let i = 0; i < n; i++) result = step(result);
  return result;
}

function wide(n: number, t: (...values: number[]) => Tensor): Tensor[] {
  return Array.from({ length: n }, (_, i) => t(i, 1));
}

for (const [name, build] of Object.entries(graphs)) {
  for (const [kind, like] of [
    ["the cpu", cpu],
    ["few bindings", few],
  ] as const) {
    test(`${name}: twice the nodes are at most twice the work and a little, for ${kind}`, async () => {
      const size = 2000;
      const half = await planned(like, (t) => build(size / 2, t));
      const whole = await planned(like, (t) => build(size, t));
      expect(whole.nodes).toBeLessThanOrEqual(2.3 * half.nodes + 2000);
      expect(whole.kernels).toBeLessThanOrEqual(2.3 * half.kernels + 2000);
      // Equal kernels are lowered and joined once, however many there are.
      expect(whole.lowered + whole.joined).toBeLessThanOrEqual(400);
    });
  }
}

test("random graphs of 10,000 nodes, deep or wide, are planned in work that grows as n log n", async () => {
  const size = 10_000;
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.constantFrom(1, 3, 100, 5000), async (seed, reach) => {
      let state = seed;
      const draw = (below: number): number => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return Math.floor((state / 2 ** 32) * below);
      };
      const found = await planned(cpu, (t) => {
        const nodes = [t(1, 2), t(3, 4)];
        while (nodes.length < size) {
          const [a, b] = [nodes[nodes.length - 1 - draw(Math.min(reach, nodes.length))], nodes[draw(nodes.length)]] as [Tensor, Tensor];
          nodes.push([a.add(b), a.mul(0.5), a.sin(), a.minimum(b), a.sub(b.sum()), a.mul(a)][draw(6)] as Tensor);
        }
        return nodes.slice(-20);
      });
      const bound = size * Math.log2(size);
      expect(found.nodes).toBeLessThanOrEqual(4 * bound);
      expect(found.kernels).toBeLessThanOrEqual(100 * bound);
    }),
    { numRuns: 2 },
  );
});

test("what initializes is not planned, counts with its memory, and is read by what comes after as any value", async () => {
  const { device: dev, plans, initializing } = planningDevice(cpu);
  const weights = initializing(() => {
    const made = new Generator(dev, 1).normal([256, 64]);
    realizeNow([made]);
    return made;
  });
  expect(plans.length).toBe(0);
  expect(dev.counters.bytesInUse).toBeGreaterThanOrEqual(4 * 256 * 64);
  await realize(weights.mul(2));
  expect(plans.length).toBe(1);
  expect(plans[0]?.kernels.length).toBe(1);
  expect(() =>
    initializing(() => {
      throw new Error("none");
    }),
  ).toThrow("none");
  await realize(weights.add(1));
  expect(plans.length).toBe(2);
});
