import { arange, attention, compile, type Device, device, Generator, rope, type Tensor, tensor } from "@lowrank/tensor";
import { expect, test } from "vitest";

test("a small expression on the reference device", async () => {
  const dev = await device("reference");
  const x = tensor(
    [
      [1, 2, 3],
      [4, 5, 6],
    ],
    { device: dev },
  );
  expect(await x.add(1).mul(2).sum(1).toArray()).toEqual([18, 36]);
  expect(await x.matmul(x.t()).toArray()).toEqual([
    [14, 32],
    [32, 77],
  ]);
  expect(await x.slice(null, [1, 3]).flip(1).toArray()).toEqual([
    [3, 2],
    [6, 5],
  ]);
  expect(await x.argmax(-1).toArray()).toEqual([2, 2]);
  expect(await arange(4, { device: dev }).toArray()).toEqual([0, 1, 2, 3]);
  const q = tensor(
    [
      [
        [
          [1, 2],
          [3, 4],
        ],
      ],
    ],
    { device: dev },
  );
  const out = await attention(q, q, q, { isCausal: true }).toArray();
  expect(out).toMatchObject([
    [
      [
        [1, 2],
        [expect.any(Number), expect.any(Number)],
      ],
    ],
  ]);
  expect(await rope(q, tensor([[1], [0]], { device: dev }), tensor([[0], [1]], { device: dev })).toArray()).toEqual([
    [
      [
        [1, 2],
        [-4, 3],
      ],
    ],
  ]);
});

test("a compiled function is recorded for each device, and refuses tensors of several", async () => {
  const [one, other] = [await device("reference"), await device("reference")];
  const add = compile((a: Tensor, b: Tensor) => a.add(b));
  const pair = (on: Device, value: number): Tensor => tensor([value, value], { device: on });
  expect(await add(pair(one, 1), pair(one, 2)).toArray()).toEqual([3, 3]);
  const sum = add(pair(other, 10), pair(other, 20));
  expect(sum.device).toBe(other);
  expect(await sum.toArray()).toEqual([30, 30]);
  expect(() => add(pair(one, 1), pair(other, 2))).toThrow(/compile: tensors of different devices \(reference and reference\)/);
  expect(await add(pair(one, 3), pair(one, 4)).toArray()).toEqual([7, 7]);
});

test("a compiled function updates state in place and draws new numbers each run", async () => {
  const dev = await device("reference");
  const total = tensor([0, 0], { device: dev });
  const generator = new Generator(dev, 7);
  const step = compile((x: ReturnType<typeof tensor>) => {
    total.assign(total.add(x));
    return { seen: total.mul(1), noise: generator.uniform([2]) };
  });
  const first = step(tensor([1, 2], { device: dev }));
  const second = step(tensor([10, 20], { device: dev }));
  expect(await second.seen.toArray()).toEqual([11, 22]);
  expect(await total.toArray()).toEqual([11, 22]);
  expect(await first.noise.toArray()).not.toEqual(await second.noise.toArray());
});
