import { compile, type Device, full, OutOfMemoryError, realize, type Tensor, tensor } from "@lowrank/tensor";
import { newDevice } from "test-support";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { nodeCollector } from "../src/backends/node/collector.js";
import { setCollector } from "../src/graph/collector.js";

const mebibyte = 2 ** 20;
const budgetBytes = 3 * mebibyte;
/** Elements of a result of 64 KiB. */
const size = 2 ** 14;
/** More results than the budget holds several times over. */
const many = 200;
/** More results than the budget holds. */
const more = 60;

let dev: Device;
beforeEach(async () => {
  dev = await newDevice({ budgetBytes, threads: 2 });
});
afterEach(() => {
  setCollector(nodeCollector);
  dev.dispose();
});

/** i + 0.5 in every element, computed. */
function result(i: number): Tensor {
  return tensor([i], { device: dev }).expand([size]).add(0.5);
}

/** The only value that all elements have. */
async function onlyValue(t: Tensor): Promise<number> {
  const values = await t.data();
  const [first = Number.NaN] = values;
  expect(values.length).toBe(size);
  expect(values.every((value) => value === first)).toBe(true);
  return first;
}

/** More results than the budget holds, each read once. */
async function readResults(): Promise<Tensor[]> {
  const results = Array.from({ length: more }, (_, i) => result(i));
  for (const [i, t] of results.entries()) expect(await onlyValue(t)).toBe(i + 0.5);
  return results;
}

const isInDeviceMemory = (t: Tensor): boolean => t.storage?.hasBuffer === true;

describe("a loop never runs out of memory because of handles that it dropped", () => {
  it("when it reads each result", async () => {
    for (let i = 0; i < many; i++) expect((await result(i).data())[size - 1]).toBe(i + 0.5);
    expect(dev.counters.peakBytes).toBeLessThanOrEqual(budgetBytes);
  });

  it("when it makes its inputs anew each time", async () => {
    const values = new Float32Array(size);
    for (let i = 0; i < many; i++) expect(await tensor(values.fill(i), { device: dev }).sum().item()).toBe(i * size);
  });

  it("when it only realizes each result", async () => {
    let last = result(0);
    for (let i = 0; i < many; i++) await realize((last = result(i)));
    expect(await onlyValue(last)).toBe(many - 0.5);
  });

  it("when it calls a compiled function and never turns to the event loop", async () => {
    const step = compile((t: Tensor) => t.expand([size]).add(0.5));
    let last: Tensor | undefined;
    for (let i = 0; i < many; i++) last = step(tensor([i], { device: dev }));
    expect(last && (await onlyValue(last))).toBe(many - 0.5);
  });

  it("when garbage cannot be asked for, as in a browser, and it reads each result", async () => {
    setCollector(() => null);
    for (let i = 0; i < many; i++) expect((await result(i).data())[size - 1]).toBe(i + 0.5);
  });
});

describe("a result that was read and is still held", () => {
  it("gives its memory to others and has its value when it is read again", async () => {
    const results = await readResults();
    expect(results.some(isInDeviceMemory)).toBe(true);
    expect(results.every(isInDeviceMemory)).toBe(false);
    for (const [i, t] of results.entries()) expect(await onlyValue(t)).toBe(i + 0.5);
  });

  it("has its value when an expression uses it", async () => {
    const results = await readResults();
    for (const [i, t] of results.entries()) expect(await onlyValue(t.mul(2))).toBe(2 * i + 1);
    for (const [i, t] of results.entries()) expect(await onlyValue(t)).toBe(i + 0.5);
  });

  it("has its value as the argument of a compiled function", async () => {
    const results = await readResults();
    const double = compile((t: Tensor) => t.mul(2));
    const [first] = results;
    expect(first && isInDeviceMemory(first)).toBe(false);
    // Memory for a synchronous call.
    for (const t of results.splice(1)) t.dispose();
    expect(first && (await onlyValue(double(first)))).toBe(1);
  });

  it("has its value whatever somebody writes into the array that data() returned", async () => {
    const results = await readResults();
    for (const t of results) (await t.data()).fill(-1);
    for (const [i, t] of results.entries()) expect(await onlyValue(t)).toBe(i + 0.5);
  });

  it("leaves room for calls that cannot wait", async () => {
    setCollector(() => null);
    const results: Tensor[] = [];
    for (let i = 0; i < more; i++) {
      const t = result(i);
      await onlyValue(t);
      results.push(t);
      tensor(new Float32Array(2 * size), { device: dev }).dispose();
    }
    expect(results.every(isInDeviceMemory)).toBe(false);
  });

  it("is computed beside many others at once", async () => {
    const results = Array.from({ length: more }, (_, i) => result(i));
    expect(await Promise.all(results.map(onlyValue))).toEqual(results.map((_, i) => i + 0.5));
  });

  it("stays in place once something was assigned to it, as a parameter", async () => {
    const parameter = result(-1);
    expect(await onlyValue(parameter)).toBe(-0.5);
    const add = compile((t: Tensor) => parameter.assign(parameter.add(t)));
    let sum = -0.5;
    const results: Tensor[] = [];
    for (let i = 0; i < more; i++) {
      const t = result(i);
      await onlyValue(t);
      results.push(t);
      expect(i === 0 || isInDeviceMemory(parameter)).toBe(true);
      add(tensor([i], { device: dev }));
      sum += i;
    }
    expect(await onlyValue(parameter)).toBe(sum);
    expect(await onlyValue(parameter)).toBe(sum);
  });
});

describe("what waits for room", () => {
  /** Leaves no room but what evicting makes; the last tensors are not evicted. */
  async function fill(): Promise<Tensor[]> {
    const results = await readResults();
    while (dev.counters.bytesInUse + size * 4 <= budgetBytes) results.push(tensor(new Float32Array(size), { device: dev }));
    expect(results.length).toBeGreaterThanOrEqual(more + 2);
    return results;
  }

  it("has the value of the moment when it was asked for, whatever is assigned meanwhile", async () => {
    const state = tensor([1], { device: dev });
    const advance = compile((t: Tensor) => state.assign(state.add(t)));
    const results = await fill();
    const asked = onlyValue(state.expand([size]).mul(10));
    for (const t of results.splice(-2)) t.dispose();
    advance(tensor([1], { device: dev }));
    const then = onlyValue(state.expand([size]).mul(10));
    for (const t of results.splice(-2)) t.dispose();
    state.assign(state.mul(100));
    expect(await state.item()).toBe(200);
    expect(await asked).toBe(10);
    expect(await then).toBe(20);
  });

  it("fails rather than having the value of another moment", async () => {
    const state = tensor([1], { device: dev });
    const advance = compile((t: Tensor) => state.assign(state.add(t)));
    const results = await fill();
    const asked = onlyValue(state.expand([size]).mul(10));
    advance(tensor([1], { device: dev }));
    await expect(asked).rejects.toThrow(OutOfMemoryError);
    expect(await state.item()).toBe(2);
    expect(await onlyValue(state.expand([size]).mul(10))).toBe(20);
    for (const [i, t] of results.slice(0, more).entries()) expect(await onlyValue(t)).toBe(i + 0.5);
  });

  it("keeps what it is computed from, though that is disposed", async () => {
    const results = await fill();
    const input = tensor([3], { device: dev });
    const asked = onlyValue(input.expand([size]).add(4));
    input.dispose();
    expect(await asked).toBe(7);
    await expect(input.data()).rejects.toThrow(/used after dispose/);
    expect(results.length).toBeGreaterThanOrEqual(more);
  });
});

describe("memory that is really in use", () => {
  async function overfill(): Promise<Tensor[]> {
    const held: Tensor[] = [];
    const hold = async (): Promise<void> => {
      for (let i = 0; i < more; i++) {
        const t = result(i);
        await t.realize();
        held.push(t);
      }
    };
    await expect(hold()).rejects.toThrow(OutOfMemoryError);
    return held;
  }

  const message =
    /budget of 3\.0 MiB; tensors in use hold 2\.\d MiB of it\. Call dispose\(\) on those that you no longer need, use a smaller batch or sequence/;

  it("is an error that says how much tensors hold and how they give it back, and nothing else changes", async () => {
    const held = await overfill();
    await expect(result(0).data()).rejects.toThrow(message);
    expect(() => tensor(new Float32Array(2 * size), { device: dev })).toThrow(message);
    const step = compile((t: Tensor) => t.expand([size]).add(0.5));
    const one = tensor([1], { device: dev });
    expect(() => step(one)).toThrow(message);
    held[0]?.dispose();
    expect(await onlyValue(step(one))).toBe(1.5);
    for (const [i, t] of held.entries()) if (i > 0) expect(await onlyValue(t)).toBe(i + 0.5);
  });

  it("is the same error where garbage cannot be asked for", async () => {
    setCollector(() => null);
    const held = await overfill();
    await expect(result(0).data()).rejects.toThrow(message);
    expect(() => tensor(new Float32Array(2 * size), { device: dev })).toThrow(message);
    expect(held.every(isInDeviceMemory)).toBe(true);
  });

  it("leaves plans that were made before as they are when a new one finds no room", async () => {
    const total = compile((t: Tensor) => t.matmul(t).sum());
    const x = full([64, 64], 1 / 64, { device: dev });
    expect(await total(x).item()).toBeCloseTo(64, 3);
    const held = await overfill();
    const large = tensor([1 / 400], { device: dev }).expand([400, 400]);
    await expect(large.matmul(large).sum().item()).rejects.toThrow(OutOfMemoryError);
    expect(await total(x).item()).toBeCloseTo(64, 3);
    expect(held.every(isInDeviceMemory)).toBe(true);
  });
});
