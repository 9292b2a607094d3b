import { compile, DeviceError, HistoryError, realize, type Tensor, tensor } from "@lowrank/tensor";
import fc from "fast-check";
import { newDevice, testDevice } from "test-support";
import { describe, expect, test } from "vitest";
import { grad } from "../src/index.js";
import * as optim from "../src/optim/index.js";

const dev = await testDevice();
const vector = (...values: number[]): Tensor => tensor(values, { device: dev });

describe("what an expression means", () => {
  test.each(["loss first", "metric first"])("does not change with an assignment that comes later (%s)", async (order) => {
    const w = vector(1);
    const opt = optim.sgd([w], { learningRate: 1 });
    const loss = w.mul(w).sum();
    const metric = w.mul(10);
    opt.update(grad(loss, [w]));
    const read = order === "loss first" ? [loss, metric] : [metric, loss];
    for (const t of read) await t.data();
    expect([await loss.item(), await metric.item(), await w.item()]).toEqual([1, 10, -1]);
  });

  test("does not change with several assignments, nor with who read what between them", async () => {
    const w = vector(1);
    const handles = [w.mul(10), w.add(1)];
    const inner = w.mul(3);
    const outer = inner.add(1);
    for (let i = 0; i < 4; i++) {
      w.assign(w.add(1));
      if (i % 2) await w.data();
      handles.push(w.mul(10));
    }
    expect(await Promise.all(handles.map((t) => t.item()))).toEqual([10, 2, 20, 30, 40, 50]);
    expect([await inner.item(), await outer.item()]).toEqual([3, 4]);
  });

  test("does not change when a compiled function overwrites what it reads, nor after many runs", async () => {
    const w = vector(1, 2);
    const step = compile((rate: Tensor) => {
      w.assign(w.sub(rate));
      return w.sum();
    });
    const before = w.mul(10);
    const total = step(vector(1));
    const between = w.mul(10);
    step(vector(1));
    step(vector(1));
    expect([...(await before.data())]).toEqual([10, 20]);
    expect([...(await between.data())]).toEqual([0, 10]);
    expect(await total.item()).toBe(1);
    expect([...(await w.data())]).toEqual([-2, -1]);
  });

  test("an argument that the compiled function assigns to is read as it was", async () => {
    const w = vector(1, 2);
    const step = compile((x: Tensor) => {
      w.assign(x.mul(2));
      return x.add(w);
    });
    const sum = step(w);
    expect([[...(await sum.data())], [...(await w.data())]]).toEqual([
      [3, 6],
      [2, 4],
    ]);
  });

  test("is of no interest where something else that it needs was disposed", async () => {
    const [w, gone] = [vector(1), vector(5)];
    const unread = w.mul(gone);
    gone.dispose();
    w.assign(w.add(1));
    expect(await w.item()).toBe(2);
    const run = compile((x: Tensor) => {
      w.assign(w.add(x));
      return x.add(0);
    });
    const other = vector(7);
    const unreadToo = w.mul(other);
    other.dispose();
    run(vector(1));
    expect(await w.item()).toBe(3);
    for (const t of [unread, unreadToo]) await expect(t.data()).rejects.toThrow(DeviceError);
  });

  test("is an error, not another value, where the old one is gone", async () => {
    const size = 65536;
    const w = tensor(new Float32Array(size).fill(1), { device: dev });
    const inner = w.mul(2);
    const outer = inner.sum();
    const run = compile((x: Tensor) => {
      w.assign(w.add(x));
      return x.add(0);
    });
    run(vector(1));
    expect(await outer.item()).toBe(2 * size);
    await expect(inner.data()).rejects.toThrow(DeviceError);
    await expect(inner.data()).rejects.toThrow("before it was assigned to, and that value is gone");
  });
});

describe("memory of values that are overwritten", () => {
  test("compiled functions copy nothing", async () => {
    const dev = await newDevice({ threads: 1 });
    const w = tensor(new Float32Array(2 ** 16), { device: dev });
    const step = compile((x: Tensor) => {
      w.assign(w.add(x));
      return x.mul(2);
    });
    const x = tensor([1], { device: dev });
    await step(x).data();
    const { buffersCreated, bytesInUse } = dev.counters;
    for (let i = 0; i < 50; i++) {
      const result = step(x);
      await result.data();
      result.dispose();
    }
    expect(dev.counters.buffersCreated - buffersCreated).toBeLessThanOrEqual(1);
    expect(dev.counters.bytesInUse - bytesInUse).toBeLessThan(2 ** 12);
    dev.dispose();
  });

  test("an eager loop of 1,000 updates holds at most one further copy of what is trained", async () => {
    const dev = await newDevice({ threads: 1 });
    const bytes = 2 ** 18;
    const w = tensor(new Float32Array(bytes / 4).fill(1), { device: dev });
    const opt = optim.adamw([w], { learningRate: 1e-3 });
    const losses: Tensor[] = [];
    const held = (): number => dev.memory.heldBytes;
    await w.data();
    const before = held();
    let most = 0;
    for (let i = 0; i < (dev.name === "cpu" ? 1000 : 50); i++) {
      const loss = w.mul(w).mean();
      opt.update(grad(loss, [w]));
      await loss.item();
      most = Math.max(most, held());
      losses.push(loss);
    }
    expect(most - before).toBeLessThan(bytes * 1.1);
    expect(losses.filter((loss) => loss.node.op !== "buffer" || loss.node.history?.of.expression(loss.node.history.index))).toEqual([]);
    expect(() => grad(losses[0] as Tensor, [w])).toThrow(HistoryError);
    dev.dispose();
  });
});

describe("gradients through values that were read", () => {
  test.each([true, false])("are those of the expression (read: %s)", async (isRead) => {
    for (const [loss, expected] of [
      [(h: Tensor, w: Tensor) => h.mul(h).add(w).sum(), 33],
      [(h: Tensor) => h.mul(3).sum(), 12],
    ] as const) {
      const w = vector(2);
      const h = w.mul(w);
      if (isRead) await h.data();
      const [dw] = grad(loss(h, w), [w]);
      expect(await dw?.item()).toBe(expected);
    }
  });

  test("go through a loss that was read, and through reads of reads", async () => {
    const w = vector(2);
    let x = w.mul(1);
    for (let i = 0; i < 5; i++) {
      x = x.mul(x.detach()).mul(0.5);
      await x.data();
    }
    const loss = x.sum();
    await loss.item();
    expect(await grad(loss, [w])[0]?.item()).toBe(1);
    const square = w.mul(w).sum();
    await square.item();
    expect(await grad(square, [w])[0]?.item()).toBe(4);
    expect(await grad(square.add(w.sum()), [square])[0]?.item()).toBe(1);
  });

  test("say by name where they cannot", async () => {
    const w = vector(2);
    const h = w.mul(w);
    await h.data();
    w.assign(w.add(1));
    await w.data();
    expect(() => grad(h.sum(), [w])).toThrow(HistoryError);
    expect(() => grad(h.sum(), [w])).toThrow("f32 [1] value that was computed from a tensor that has been changed in place");
    expect(() => grad(h.sum(), [w])).toThrow("detach()");
    // Not read, but of the value before.
    const former = vector(1);
    const unread = former.mul(3);
    former.assign(former.mul(2));
    expect(() => grad(unread.sum(), [former])).toThrow("change in place");
    await former.data();
    expect(() => grad(unread.sum(), [former])).toThrow("change in place");
    // What does not depend on it is not concerned, nor what is detached.
    const other = vector(5);
    expect(await grad(h.mul(other).sum(), [other])[0]?.item()).toBe(4);
    expect(await grad(h.detach().mul(w).sum(), [w])[0]?.item()).toBe(4);
    const outside = other.mul(other);
    await outside.data();
    const step = compile((x: Tensor) => grad(outside.mul(other).mul(x).sum(), [other])[0] as Tensor);
    expect(() => step(vector(1))).toThrow("outside of the compiled function");
  });

  test.runIf(dev.name === "cpu")("go through a chain of 40,000 operations that was read", async () => {
    const w = vector(1);
    let x = w;
    for (let i = 0; i < 20_000; i++) x = x.mul(1.0001).add(0.1);
    const loss = x.sum();
    expect(await loss.item()).toBeCloseTo(1.0001 ** 20_000 + 0.1 * ((1.0001 ** 20_000 - 1) / 0.0001), -2);
    expect(await grad(loss, [w])[0]?.item()).toBeCloseTo(1.0001 ** 20_000, 1);
  });

  // The engine's own bookkeeping, the same on all.
  test.runIf(dev.name === "cpu")(
    "histories that nobody can differentiate by are let go",
    async () => {
      let x = vector(1);
      const [a, b] = [vector(0.5), vector(1)];
      const first = x;
      for (let i = 0; i < 6000; i++) {
        x = x.mul(a).add(b);
        if (i % 8 === 7) await x.data();
        else await realize(x);
      }
      expect(await x.item()).toBeCloseTo(2, 6);
      expect(() => grad(x.sum(), [first])).toThrow("was read so long ago");
    },
    60_000,
  );
});

/** A value of the eager interpreter: numbers, and their derivatives by the versions of parameters that they came from. */
interface Eager {
  readonly value: readonly number[];
  readonly slopes: ReadonlyMap<string, readonly number[]>;
}

const width = 2;

function combine(value: (i: number) => number, parts: readonly (readonly [Eager, (i: number) => number])[]): Eager {
  const slopes = new Map<string, number[]>();
  for (const [part, factor] of parts) {
    for (const [name, slope] of part.slopes) {
      const sum = slopes.get(name) ?? new Array<number>(width).fill(0);
      slopes.set(
        name,
        sum.map((total, i) => total + (slope[i] ?? 0) * factor(i)),
      );
    }
  }
  return { value: Array.from({ length: width }, (_, i) => value(i)), slopes };
}

const at = (x: Eager, i: number): number => x.value[i] ?? 0;

const instruction = fc.oneof(
  fc.record({ kind: fc.constantFrom("add", "mul", "tanh", "detach"), a: fc.nat(), b: fc.nat() }),
  fc.record({ kind: fc.constantFrom("read", "assign", "compiled", "grad"), a: fc.nat(), b: fc.nat() }),
);

test("random programs of reads, assignments and gradients give what an eager interpreter gives", async () => {
  let gradients = 0;
  let refusals = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(instruction, { minLength: 4, maxLength: 24 }), async (program) => {
      const parameters = [0, 1].map((i) => ({ tensor: tensor([0.5 + i, 0.25 - i], { device: dev }), version: 0, number: i }));
      const nameOf = (p: (typeof parameters)[number]): string => `${p.number}:${p.version}`;
      const pool: { readonly handle: Tensor; readonly eager: Eager }[] = [];
      const now = parameters.map((p): Eager => {
        const value = [0.5 + p.number, 0.25 - p.number];
        return { value, slopes: new Map([[nameOf(p), [1, 1]]]) };
      });
      const pick = (n: number): { handle: Tensor; eager: Eager } => {
        const index = n % (pool.length + parameters.length);
        const p = parameters[index];
        return p ? { handle: p.tensor, eager: now[index] as Eager } : (pool[index - parameters.length] as { handle: Tensor; eager: Eager });
      };
      const near = (actual: ArrayLike<number>, expected: readonly number[]): void => {
        for (const [i, value] of expected.entries())
          expect(Math.abs((actual[i] ?? Number.NaN) - value)).toBeLessThan(1e-4 * (1 + Math.abs(value)));
      };
      for (const { kind, a, b } of program) {
        const [x, y] = [pick(a), pick(b)];
        const tamed = (t: Tensor): Tensor => t.mul(0.5);
        switch (kind) {
          case "add":
            pool.push({
              handle: x.handle.add(y.handle),
              eager: combine(
                (i) => at(x.eager, i) + at(y.eager, i),
                [
                  [x.eager, () => 1],
                  [y.eager, () => 1],
                ],
              ),
            });
            break;
          case "mul":
            pool.push({
              handle: tamed(x.handle.mul(y.handle).tanh()),
              eager: combine(
                (i) => 0.5 * Math.tanh(at(x.eager, i) * at(y.eager, i)),
                [
                  [x.eager, (i) => 0.5 * (1 - Math.tanh(at(x.eager, i) * at(y.eager, i)) ** 2) * at(y.eager, i)],
                  [y.eager, (i) => 0.5 * (1 - Math.tanh(at(x.eager, i) * at(y.eager, i)) ** 2) * at(x.eager, i)],
                ],
              ),
            });
            break;
          case "tanh":
            pool.push({
              handle: x.handle.tanh(),
              eager: combine((i) => Math.tanh(at(x.eager, i)), [[x.eager, (i) => 1 - Math.tanh(at(x.eager, i)) ** 2]]),
            });
            break;
          case "detach":
            pool.push({ handle: x.handle.detach(), eager: { value: x.eager.value, slopes: new Map() } });
            break;
          case "read":
            near(await x.handle.data(), x.eager.value);
            break;
          case "assign":
          case "compiled": {
            const p = parameters[b % parameters.length] as (typeof parameters)[number];
            const value = x.eager.value.map((v) => Math.tanh(v) + 0.1);
            if (kind === "assign") p.tensor.assign(x.handle.tanh().add(0.1));
            else {
              const run = compile((given: Tensor) => {
                p.tensor.assign(given.tanh().add(0.1));
                return given.add(0);
              });
              run(x.handle);
              run.dispose();
            }
            p.version++;
            now[p.number] = { value, slopes: new Map([[nameOf(p), [1, 1]]]) };
            break;
          }
          case "grad": {
            const p = parameters[b % parameters.length] as (typeof parameters)[number];
            const present = new Set(parameters.map(nameOf));
            const mayRefuse = [...x.eager.slopes.keys()].some((name) => !present.has(name));
            let dx: Tensor | undefined;
            try {
              [dx] = grad(x.handle.sum(), [p.tensor]);
            } catch (error) {
              if (!(error instanceof HistoryError) || !mayRefuse) throw error;
              refusals++;
              break;
            }
            expect([...x.eager.slopes.keys()].some((name) => name.startsWith(`${p.number}:`) && !present.has(name))).toBe(false);
            near((await dx?.data()) ?? [], x.eager.slopes.get(nameOf(p)) ?? [0, 0]);
            gradients++;
            break;
          }
        }
      }
      for (const { handle, eager } of pool) near(await handle.data(), eager.value);
    }),
    { numRuns: dev.name === "cpu" ? 80 : 15 },
  );
  expect(gradients).toBeGreaterThan(5);
  if (dev.name === "cpu") expect(refusals).toBeGreaterThan(0);
});

test("compile keeps a bounded number of recordings", async () => {
  const dev = await newDevice({ threads: 1 });
  let recorded = 0;
  const scaled = compile((x: Tensor, factor: number) => {
    recorded++;
    return x.mul(factor);
  });
  const x = tensor([2], { device: dev });
  for (let i = 0; i < 200; i++) scaled(x, i).dispose();
  expect(recorded).toBe(200);
  scaled(x, 199);
  expect(recorded).toBe(200);
  expect(await scaled(x, 0).item()).toBe(0);
  expect(recorded).toBe(201);
  dev.dispose();
});
