import { cachedAttention, device, type Tensor, tensor } from "@lowrank/tensor";
import { expectSameLists } from "test-support";
import { afterAll, expect, test } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { Device } from "../src/graph/device.js";
import { planExecutor } from "../src/schedule/plan-executor.js";
import { values } from "./matmul-cases.js";

const environment = nodeEnvironment();
const cpu = (threadCount: number): Device =>
  new Device("cpu", createCpuBackend({ environment, threadCount, soloNanoseconds: 0 }), planExecutor());
const devices = [1, 2, 3].map(cpu);
afterAll(() => {
  for (const dev of devices) dev.dispose();
});

const filled = (dev: Device, shape: readonly number[], seed: number): Tensor =>
  tensor(
    Float32Array.from(
      values(
        shape.reduce((a, b) => a * b, 1),
        seed,
        "f32",
      ),
    ),
    { device: dev, shape },
  );

test.each([
  ["one query", 1],
  ["more queries than are shared out by chunks of keys", 40],
])("attention of %s to a cache has the same bits on 1, 2 and 3 threads", async (_name, queries) => {
  const results = await Promise.all(
    devices.map((dev) => {
      const positions = tensor([3, 500, 130], { device: dev, dtype: "i32" });
      const [keys, cached] = [2, 3].map((seed) => filled(dev, [3, 2, 560, 16], seed)) as [Tensor, Tensor];
      return cachedAttention(filled(dev, [3, 4, queries, 16], 1), keys, cached, positions).data();
    }),
  );
  const [first = new Float32Array(), ...others] = results.map((data) => Array.from(data));
  for (const other of others) expectSameLists([other], [first]);
});

test("rows times a weight that is never kept in panels have the bits of each row alone", async () => {
  const reference = await device("reference");
  const [rows, width, vocab] = [8, 52, 70];
  for (const dev of devices) {
    const product = (on: Device, first: number, count: number): Promise<ArrayLike<number>> => {
      const weight = filled(on, [vocab, width], 2);
      // Read as an embedding too, it stays as it is.
      const embedded = weight.gather(tensor([1], { device: on, dtype: "i32" })).sum();
      return filled(on, [rows, width], 1).narrow(0, first, count).add(0).matmul(weight.t()).add(embedded).data();
    };
    for (const count of [8, 5, 3]) {
      const [together, want] = [await product(dev, 0, count), await product(reference, 0, count)];
      for (let i = 0; i < want.length; i++) expect(together[i]).toBeCloseTo(want[i] ?? Number.NaN, 4);
      for (let row = 0; row < count; row++)
        expectSameLists([await product(dev, row, 1)], [Array.from(together).slice(row * vocab, (row + 1) * vocab)]);
    }
  }
});
