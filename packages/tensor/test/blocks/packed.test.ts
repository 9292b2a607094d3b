import {
  arange,
  awqValues,
  type BlockType,
  blockTensor,
  blockTypes,
  blockWriter,
  compile,
  type Device,
  DeviceError,
  type DType,
  fourBitValues,
  fromStorage,
  gather,
  gptqValues,
  linearCrossEntropy,
  linearCrossEntropyBackward,
  mlxAffineValues,
  nestedScales,
  type Plan,
  packedTensor,
  planningDevice,
  planStatistics,
  realize,
  realizeNow,
  rowwiseValues,
  ShapeError,
  Storage,
  Tensor,
  tensor,
  unpacked,
} from "@lowrank/tensor";
import { newDevice, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

const typeOf = (name: string): BlockType => {
  const type = blockTypes.get(name);
  if (!type) throw new Error(`there is no type ${name}`);
  return type;
};
const q8 = typeOf("Q8_0");

/** Blocks of Q8_0 of some whole numbers, with a scale of 1. */
function packedOf(values: readonly number[]): Uint8Array {
  const packed = new Uint8Array((values.length * 34) / 32);
  for (let block = 0; block < packed.length / 34; block++) {
    packed[block * 34 + 1] = 0x3c;
    for (let i = 0; i < 32; i++) packed[block * 34 + 2 + i] = (values[block * 32 + i] ?? 0) & 255;
  }
  return packed;
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, i) => ((i * 37) % 200) - 100);
const weightOf = (rows: number, columns: number, on: Device = dev): Tensor =>
  blockTensor(q8, packedOf(numbers(rows * columns)), [rows, columns], on);

describe("a packed tensor", () => {
  test("is read again and again, and never kept: neither by its own handle nor by what is computed next", async () => {
    const own = await newDevice();
    const weight = weightOf(64, 256, own);
    const { node } = weight;
    const held = own.memory.heldBytes;
    for (let time = 0; time < 2; time++) {
      expect(Array.from(await weight.data())).toEqual(numbers(64 * 256));
      await realize(weight);
      realizeNow([weight]);
      expect(weight.node).toBe(node);
      expect(weight.storage).toBeNull();
      expect(own.memory.heldBytes).toBe(held);
    }
    const x = tensor([Array.from({ length: 256 }, (_, i) => Number(i === 3))], { device: own });
    expect((await x.matmul(weight.t()).data())[2]).toBe(numbers(64 * 256)[2 * 256 + 3]);
    own.dispose();
  });

  test("says its type and what it takes, which others do not", () => {
    const weight = weightOf(8, 64);
    expect(weight.packing).toMatchObject({ type: "Q8_0", bytes: (8 * 64 * 34) / 32 });
    expect([weight.shape, weight.dtype]).toEqual([[8, 64], "f32"]);
    for (const other of [weight.t(), weight.mul(1.5), tensor([1], { device: dev })]) expect(other.packing).toBeNull();
    expect(weight.detach()).toBe(weight);
    weight.dispose();
  });

  test("is captured by a compiled function, passed to one, and given back by one, without a dense copy", async () => {
    const own = await newDevice();
    const [first, second] = [weightOf(32, 64, own), weightOf(16, 64, own)];
    const x = tensor([Array.from({ length: 64 }, (_, i) => i % 3)], { device: own });
    const wanted = async (weight: Tensor): Promise<number[]> => Array.from(await x.matmul(weight.t()).data());
    const captured = compile((input: Tensor) => input.matmul(first.t()));
    const passed = compile((input: Tensor, weight: Tensor) => ({ product: input.matmul(weight.t()), weight }));
    for (let time = 0; time < 2; time++) {
      expect(Array.from(await captured(x).data())).toEqual(await wanted(first));
      for (const weight of [first, second, first]) {
        const result = passed(x, weight);
        expect(result.weight).toBe(weight);
        expect(Array.from(await result.product.data())).toEqual(await wanted(weight));
      }
    }
    expect(() => compile(() => packedTensor("x", { x: x.add(1) }, (parts) => parts.x))()).toThrow(DeviceError);
    own.dispose();
  });

  test("is not computed when something else is assigned to", async () => {
    const own = await newDevice();
    const weight = weightOf(64, 256, own);
    const state = tensor([1], { device: own });
    const held = own.memory.heldBytes;
    state.assign(state.add(1));
    await realize(state, weight);
    expect(await state.item()).toBe(2);
    expect(own.memory.heldBytes).toBeLessThan(held + 1024);
    own.dispose();
  });

  test("gives its blocks back once, and is of no use then", async () => {
    const own = await newDevice();
    const before = own.memory.heldBytes;
    const weight = weightOf(64, 256, own);
    expect(own.memory.heldBytes).toBeGreaterThan(before);
    weight.dispose();
    weight.dispose();
    expect(own.memory.heldBytes).toBe(before);
    await expect(weight.data()).rejects.toThrow(DeviceError);
    own.dispose();
  });

  test("takes no assignment, and has to be of f32", () => {
    const weight = weightOf(8, 64);
    expect(() => weight.assign(weight.mul(2))).toThrow(/packed as Q8_0, and blocks take no other numbers\. Put a dense tensor/);
    expect(() => packedTensor("odd", { x: tensor([1], { dtype: "i32", device: dev }) }, ({ x }) => x)).toThrow(ShapeError);
    weight.dispose();
  });

  test("of no rank, and with an axis of 0, is read", async () => {
    const one = packedTensor("half", { x: tensor([2], { dtype: "f16", device: dev }) }, ({ x }) => x.cast("f32").reshape([]));
    expect(Array.from(await one.data())).toEqual([2]);
    const none = blockTensor(q8, new Uint8Array(0), [0, 32], dev);
    expect(Array.from(await none.data())).toEqual([]);
  });
});

describe("a writer of blocks", () => {
  test("puts rows in another order, and pieces one behind the other, as bytes", async () => {
    const all = numbers(6 * 64);
    const packed = packedOf(all);
    const rowBytes = packed.length / 6;
    const order = [4, 1, 5, 0, 3, 2];
    const writer = blockWriter(q8, [6, 64], dev);
    for (const [to, from] of order.entries()) writer.write(packed.subarray(from * rowBytes, (from + 1) * rowBytes), to * 2);
    const weight = writer.finish();
    expect(Array.from(await weight.data())).toEqual(order.flatMap((row) => all.slice(row * 64, (row + 1) * 64)));
    weight.dispose();
  });

  test("refuses parts of blocks, blocks outside, and an end before all are there", () => {
    const writer = blockWriter(q8, [2, 32], dev);
    expect(() => writer.write(new Uint8Array(33), 0)).toThrow(/33 bytes at block 0 are not among the 2 of \[2, 32\] of Q8_0/);
    expect(() => writer.write(new Uint8Array(34), 2)).toThrow(ShapeError);
    expect(() => writer.write(new Uint8Array(34), -1)).toThrow(ShapeError);
    writer.write(new Uint8Array(34), 1);
    expect(() => writer.finish()).toThrow(/1 of the 2 blocks of \[2, 32\] were written/);
    writer.dispose();
    expect(() => blockWriter(q8, [2, 33], dev)).toThrow(/not whole blocks of Q8_0, of 32/);
  });

  for (const type of blockTypes.values())
    test(`takes ${type.name} apart wherever the bytes begin in memory`, async () => {
      const packed = Uint8Array.from({ length: 8 * type.blockBytes }, (_, i) => (i * 73 + (i >> 5)) & 0x3f);
      const shape = [8, type.blockSize];
      const values = await Promise.all(
        [0, 1, 2, 4].map(async (offset) => {
          const moved = new Uint8Array(packed.length + offset);
          moved.set(packed, offset);
          const weight = blockTensor(type, moved.subarray(offset), shape, dev);
          const read = await weight.data();
          weight.dispose();
          return read;
        }),
      );
      for (const other of values.slice(1)) expect(other).toEqual(values[0]);
    });
});

/** The plans of what is computed from a weight in blocks. */
async function plansOf(make: (on: Device) => Tensor): Promise<readonly Plan[]> {
  const { device: on, plans } = planningDevice(dev);
  await realize(make(on));
  return plans;
}

test("the cross-entropy of a head in blocks = that of its numbers, gradient too, and has neither head nor logits whole", async () => {
  const [rows, classes, width] = [600, 40_000, 64];
  const given = (on: Device) => ({
    hidden: tensor(
      Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i) / 8),
      { shape: [rows, width], device: on },
    ),
    labels: tensor(
      Array.from({ length: rows }, (_, i) => (i % 5 === 3 ? -100 : (i * 7919) % classes)),
      { dtype: "i32", device: on },
    ),
  });
  const compute = (weight: Tensor): Tensor[] => {
    const { hidden, labels } = given(weight.device);
    const losses = linearCrossEntropy(hidden, weight, labels);
    const { node } = losses;
    if (node.op !== "output") throw new Error("linearCrossEntropy is no composite");
    const total = new Tensor({ op: "output", of: node.of, index: 1, shape: [rows], dtype: "f32" }, weight.device);
    const dLoss = tensor(new Float32Array(rows).fill(1), { device: weight.device });
    const changed = linearCrossEntropy(hidden, weight, labels, { logits: (x) => x.div(50).tanh().mul(50) });
    return [losses, ...linearCrossEntropyBackward([hidden, weight, labels, total, dLoss], false), changed];
  };
  const planned = planningDevice(dev);
  await realize(...compute(weightOf(classes, width, planned.device)));
  // Three parts of the rows, of which the logits and their gradient are there at a time. The head would be 10 MiB more.
  for (const plan of planned.plans) expect(planStatistics(plan).arenaBytes).toBeLessThan((2 * 4 * rows * classes) / 3 + 2 ** 21);
  const packed = weightOf(classes, width);
  const dense = await unpacked(packed, "f32");
  const [got, wanted] = [compute(packed), compute(dense)];
  for (const [i, result] of got.entries()) {
    const [a, b] = [await result.data(), await (wanted[i] as Tensor).data()];
    // Sums of 40,000 in another order: of exponentials, and for the gradient of these times numbers of up to 100.
    const scale = i === 1 ? 100 : 1;
    for (const [at, value] of b.entries())
      if (!(Math.abs(value - (a[at] ?? Number.NaN)) <= 2e-5 * Math.max(scale, Math.abs(value))))
        throw new Error(`${i}, ${at}: ${a[at]} for ${value}`);
  }
  packed.dispose();
  dense.dispose();
});

describe("nothing of a weight in blocks is whole in f32", () => {
  const [outputs, inputs, rows] = [1024, 2048, 16];
  /** Activations and results of a product with few rows. */
  const most = 4 * rows * (outputs + inputs) * 2;
  const stored = (shape: readonly number[], dtype: DType, on: Device): Tensor =>
    fromStorage(
      new Storage(
        on,
        dtype,
        shape.reduce((product, size) => product * size, 1),
      ),
      shape,
    );
  const ofTools: Readonly<Record<string, (on: Device) => Tensor>> = {
    "nf4 with nested scales": (on) =>
      packedTensor(
        "nf4",
        {
          packed: stored([(outputs * inputs) / 2], "u8", on),
          code: stored([16], "f32", on),
          absmax: stored([(outputs * inputs) / 64], "u8", on),
          nestedCode: stored([256], "f32", on),
          nestedAbsmax: stored([(outputs * inputs) / 64 / 256], "f32", on),
          offset: stored([1], "f32", on),
        },
        ({ packed, code, absmax, nestedCode, nestedAbsmax, offset }) =>
          fourBitValues({
            packed,
            code,
            absmax: nestedScales({ absmax, code: nestedCode, nestedAbsmax, offset, blockSize: 256 }),
            blockSize: 64,
            shape: [outputs, inputs],
          }),
      ),
    int8: (on) =>
      packedTensor("int8", { q: stored([outputs, inputs], "u8", on), scb: stored([outputs], "f32", on) }, ({ q, scb }) =>
        rowwiseValues(q, scb),
      ),
    "gptq with an order": (on) =>
      packedTensor(
        "gptq",
        {
          qweight: stored([inputs / 8, outputs], "i32", on),
          qzeros: stored([inputs / 128, outputs / 8], "i32", on),
          scales: stored([inputs / 128, outputs], "f16", on),
          groupOf: stored([inputs], "i32", on),
        },
        (parts) => gptqValues({ ...parts, bits: 4, version: 1 }),
      ),
    awq: (on) =>
      packedTensor(
        "awq",
        {
          qweight: stored([inputs, outputs / 8], "i32", on),
          qzeros: stored([inputs / 128, outputs / 8], "i32", on),
          scales: stored([inputs / 128, outputs], "f16", on),
        },
        awqValues,
      ),
    "mlx in 3 bits": (on) =>
      packedTensor(
        "mlx",
        {
          packed: stored([outputs, (inputs * 3) / 32], "u32", on),
          scales: stored([outputs, inputs / 64], "f16", on),
          biases: stored([outputs, inputs / 64], "f16", on),
        },
        (parts) => mlxAffineValues({ ...parts, bits: 3 }),
      ),
  };
  const ofFiles = [...blockTypes.values()].map(
    (type) =>
      [
        type.name,
        (on: Device): Tensor =>
          blockTensor(type, new Uint8Array((outputs * inputs * type.blockBytes) / type.blockSize), [outputs, inputs], on),
      ] as const,
  );
  for (const [name, weightOn] of [...ofFiles, ...Object.entries(ofTools)]) {
    const given = (columns: number, on: Device): Tensor => tensor(new Float32Array(rows * columns), { shape: [rows, columns], device: on });
    const uses: Readonly<Record<string, (on: Device) => Tensor>> = {
      "times rows": (on) => given(inputs, on).matmul(weightOn(on).t()),
      "times one row": (on) => given(inputs, on).narrow(0, 0, 1).matmul(weightOn(on).t()),
      "for the gradient of the rows": (on) => given(outputs, on).matmul(weightOn(on)),
      "some of its rows": (on) => gather(weightOn(on), arange(rows, { device: on }).mul(3), 0),
    };
    for (const [what, use] of Object.entries(uses))
      test(`${name}, ${what}`, async () => {
        for (const plan of await plansOf(use)) expect(planStatistics(plan).arenaBytes).toBeLessThanOrEqual(most);
      });
  }
});
