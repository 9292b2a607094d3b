import { binaryOf } from "../src/elementwise/binary.js";
import { reduceKinds } from "../src/elementwise/reduce.js";
import { unaryOf } from "../src/elementwise/unary.js";
import type { Backend, BackendBuffer, Executable } from "../src/graph/backend.js";
import { Device } from "../src/graph/device.js";
import { philox } from "../src/graph/philox.js";
import { epilogueLoop } from "../src/kernels/epilogue.js";
import type { Expr } from "../src/kernels/expr.js";
import type { Kernel, LoopKernel, MatrixOperand, Plan, Slot } from "../src/kernels/kernel.js";
import { isComputed, productsOf } from "../src/kernels/products.js";
import { planExecutor } from "../src/schedule/plan-executor.js";
import { decode, encode } from "../src/tensor/dtype.js";

type Values = Float64Array;

interface JsBuffer extends BackendBuffer {
  values: Values;
  data: Uint8Array;
}

/** Runs plans kernel by kernel in float64 JavaScript, so that scheduling can be tested apart from any backend's code generation. */
export function planInterpreter(budgetBytes: number = 2 ** 33): Device & { plans: Plan[] } {
  const plans: Plan[] = [];
  const backend: Backend = {
    name: "cpu",
    description: "plan interpreter",
    limits: { maxBufferBytes: 2 ** 31, budgetBytes },
    counters: { buffersCreated: 0, pipelinesCreated: 0, plansPrepared: 0, kernelsRun: 0, bytesInUse: 0, peakBytes: 0 },
    supports: () => false,
    leastSummedRows: 2,
    allocate: (bytes): JsBuffer => ({ bytes, values: new Float64Array(), data: new Uint8Array(bytes) }),
    free() {},
    write(buffer, data, offset = 0) {
      (buffer as JsBuffer).data.set(data, offset);
    },
    async read(buffer, length, offset = 0) {
      return (buffer as JsBuffer).data.slice(offset, offset + length);
    },
    prepare(plan): Executable {
      plans.push(plan);
      return { plan, dispose() {} };
    },
    run({ plan }, bindings) {
      const arena = new Uint8Array(plan.arenaBytes);
      const bytesOf = (slot: Slot): Uint8Array => {
        const info = plan.slots[slot];
        if (!info) throw new Error(`no slot ${slot}`);
        return info.kind === "arena"
          ? arena.subarray(info.offset, info.offset + info.bytes)
          : (bindings[info.binding] as JsBuffer).data.subarray(0, info.bytes);
      };
      const read = (slot: Slot): Values => Float64Array.from(decode(bytesOf(slot).slice(), plan.slots[slot]?.dtype ?? "f32"));
      const write = (slot: Slot, values: Values): void => bytesOf(slot).set(encode(values, plan.slots[slot]?.dtype ?? "f32"));
      for (const kernel of plan.kernels) runKernel(kernel, read, write, bytesOf);
    },
    finish: async () => {},
    dispose() {},
  };
  return Object.assign(new Device("cpu", backend, planExecutor()), { plans });
}

function runKernel(
  kernel: Kernel,
  read: (slot: Slot) => Values,
  write: (slot: Slot, values: Values) => void,
  bytesOf: (slot: Slot) => Uint8Array,
): void {
  switch (kernel.kind) {
    case "loop":
      if (kernel.over) write(kernel.over.into, read(kernel.over.from));
      runLoop(kernel, read, write);
      return;
    case "matmul": {
      const out = read(kernel.out).fill(0);
      const memory = new Map<Slot, Values>();
      const slotValues = (slot: Slot): Values => {
        let values = memory.get(slot);
        if (!values) memory.set(slot, (values = read(slot)));
        return values;
      };
      const batchCount = kernel.batch.reduce((x, y) => x * y, 1);
      for (let batch = 0; batch < batchCount; batch++) {
        const indices: number[] = [];
        let rest = batch;
        for (let axis = kernel.batch.length - 1; axis >= 0; axis--) {
          const size = kernel.batch[axis] ?? 1;
          indices.unshift(rest % size);
          rest = Math.floor(rest / size);
        }
        const element = (operand: MatrixOperand, row: number, column: number): number => {
          if (isComputed(operand)) return evaluate(operand.value, [...indices, row, column], [], slotValues);
          const start = indices.reduce((sum, i, axis) => sum + i * (operand.batchStrides[axis] ?? 0), operand.offset);
          return slotValues(operand.slot)[start + row * operand.rowStride + column * operand.columnStride] ?? Number.NaN;
        };
        for (const { k, a, b, factor } of productsOf(kernel)) {
          for (let i = 0; i < kernel.m; i++) {
            for (let j = 0; j < kernel.n; j++) {
              let sum = 0;
              for (let d = 0; d < k; d++) sum += element(a, i, d) * element(b, d, j);
              const at = (batch * kernel.m + i) * kernel.n + j;
              out[at] = (out[at] ?? 0) + factor * sum;
            }
          }
        }
      }
      write(kernel.out, out);
      if (kernel.epilogue) runLoop(epilogueLoop(kernel, kernel.epilogue), read, write);
      return;
    }
    case "scatterAdd": {
      const [indices, updates] = [read(kernel.indices), read(kernel.updates)];
      const out = new Float64Array(kernel.rows * kernel.width);
      for (const [n, row] of indices.entries()) {
        if (row < 0 || row >= kernel.rows) continue;
        for (let i = 0; i < kernel.width; i++)
          out[row * kernel.width + i] = (out[row * kernel.width + i] ?? 0) + (updates[n * kernel.width + i] ?? 0);
      }
      write(kernel.out, out);
      return;
    }
    case "copy":
      bytesOf(kernel.to).set(bytesOf(kernel.from).subarray(0, kernel.bytes));
      return;
    case "composite":
      throw new Error("composites are decomposed here");
    case "group":
      // Backwards, so that members that depend on one another are found out.
      for (const member of [...kernel.members].reverse()) runKernel(member, read, write, bytesOf);
  }
}

function runLoop(kernel: LoopKernel, read: (slot: Slot) => Values, write: (slot: Slot, values: Values) => void): void {
  const memory = new Map<Slot, Values>();
  const slotValues = (slot: Slot): Values => {
    let values = memory.get(slot);
    if (!values) memory.set(slot, (values = read(slot)));
    return values;
  };
  const results = new Map<Slot, Values>();
  for (const { slot } of kernel.stores) results.set(slot, Float64Array.from(slotValues(slot)));
  const at: number[] = kernel.outer.map(() => 0);
  const rows = kernel.outer.reduce((x, y) => x * y, 1);
  const accumulators: number[] = [];
  for (let row = 0; row < rows; row++) {
    let rest = row;
    for (let axis = at.length - 1; axis >= 0; axis--) {
      at[axis] = rest % (kernel.outer[axis] ?? 1);
      rest = Math.floor(rest / (kernel.outer[axis] ?? 1));
    }
    const each = (visit: () => void): void => {
      for (let i = 0; i < kernel.inner; i++) {
        at[kernel.outer.length] = i;
        visit();
      }
    };
    for (const [k, { combine, value }] of kernel.reductions.entries()) {
      let total = reduceKinds[combine].start[value.dtype];
      each(() => {
        const x = evaluate(value, at, accumulators, slotValues);
        total = binaryOf(reduceKinds[combine].combine, total, x, value.dtype);
      });
      accumulators[k] = total;
    }
    for (const store of kernel.stores) {
      const put = (): void => {
        const index = evaluate(store.index, at, accumulators, slotValues);
        const target = results.get(store.slot);
        if (!target || index < 0 || index >= target.length) throw new RangeError(`store outside slot ${store.slot}: ${index}`);
        target[index] = evaluate(store.value, at, accumulators, slotValues);
      };
      if (store.scope === "row") put();
      else each(put);
    }
  }
  for (const [slot, values] of results) write(slot, values);
}

function evaluate(expr: Expr, at: readonly number[], accumulators: readonly number[], memory: (slot: Slot) => Values): number {
  const value = (e: Expr): number => evaluate(e, at, accumulators, memory);
  switch (expr.op) {
    case "const":
      return expr.value;
    case "variable":
      return at[expr.axis] ?? 0;
    case "load": {
      const index = value(expr.index);
      const values = memory(expr.slot);
      if (index < 0 || index >= values.length) throw new RangeError(`load outside slot ${expr.slot}: ${index} of ${values.length}`);
      return values[index] ?? 0;
    }
    case "accumulator":
      return accumulators[expr.index] ?? 0;
    case "random": {
      const index = value(expr.index);
      return philox([index >>> 2, 0, value(expr.stream), 0], [value(expr.key0), value(expr.key1)])[index & 3] ?? 0;
    }
    case "select":
      return value(expr.condition) ? value(expr.a) : value(expr.b);
    case "cast": {
      const x = value(expr.x);
      if (expr.dtype === "i32") return expr.x.dtype === "f32" ? Math.min(Math.max(Math.trunc(x) || 0, -(2 ** 31)), 2 ** 31 - 1) : x | 0;
      if (expr.dtype === "u32") return expr.x.dtype === "f32" ? Math.min(Math.max(Math.trunc(x) || 0, 0), 2 ** 32 - 1) : x >>> 0;
      return expr.dtype === "bool" ? Number(x !== 0) : x;
    }
    case "given":
      return value(expr.x);
    case "unary":
      return unaryOf(expr.kind, value(expr.x), expr.dtype);
    case "binary":
    case "index":
      return binaryOf(expr.kind, value(expr.a), value(expr.b), expr.a.dtype);
  }
}
