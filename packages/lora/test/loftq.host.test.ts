import { nn } from "@lowrank/autograd";
import { type Device, device, fourBitValues, memoryFiles, packedTensor, quantizeFourBit, type Tensor, tensor } from "@lowrank/tensor";
import { beforeAll, expect, test } from "vitest";
import { AdapterError, applyAdapter, loadAdapter, merge, peftConfig, saveAdapter } from "../src/index.js";
import golden from "./loftq.json" with { type: "json" };

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

const { rows, columns, rank } = golden;

/** Numbers that loftq.py makes too. */
function numbers(): Float32Array {
  let state = 5;
  return Float32Array.from({ length: rows * columns }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) / 2 ** 23 - 1;
  });
}

function turned(values: Float32Array): Float32Array {
  return Float32Array.from(values, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)] ?? 0);
}

/** A layer in nf4, which knows what its weight was. */
class Quantized extends nn.Module {
  readonly q_proj: nn.Linear;
  readonly quantization = "nf4";
  readonly #whole: Float32Array;

  constructor({ isTransposed = false, isPacked = true }: { readonly isTransposed?: boolean; readonly isPacked?: boolean } = {}) {
    super();
    const values = numbers();
    this.#whole = isTransposed ? turned(values) : values;
    const { packed, code, scales } = quantizeFourBit("nf4", values, { isNested: false });
    const parts = {
      packed: tensor(packed, { dtype: "u8", device: dev }),
      code: tensor(code, { device: dev }),
      absmax: tensor(scales as Float32Array, { device: dev }),
    };
    const quantized = packedTensor("nf4", parts, (held) => {
      const weight = fourBitValues({ ...held, blockSize: 64, shape: [rows, columns] });
      return isTransposed ? weight.t() : weight;
    });
    const dense = tensor(this.#whole, { shape: isTransposed ? [columns, rows] : [rows, columns], device: dev });
    this.q_proj = new nn.Linear(isPacked ? quantized : dense, null, { isTransposed });
  }

  storedWeight(parameter: Tensor): Promise<Float32Array> | null {
    return parameter === this.q_proj.weight ? Promise.resolve(this.#whole) : null;
  }
}

const options = { method: "lora", init: "loftq", rank, targets: ["q_proj"] } as const;

for (const isTransposed of [false, true])
  for (const alpha of [rank, 3])
    test(`the first pair is PEFT's loftq_init, whatever the scaling: alpha ${alpha}, ${isTransposed ? "[in, out]" : "[out, in]"}`, async () => {
      const model = new Quantized({ isTransposed });
      const adapter = applyAdapter(model, { ...options, alpha });
      await adapter.initialize();
      const delta = await (adapter.attachments.get("q_proj")?.pair?.delta() ?? expect.fail("no pair")).data();
      // PEFT's numbers are rounded to 7 digits, and computed in f32.
      for (const [i, value] of golden.product.entries()) expect(Math.abs((delta[i] ?? 0) - value)).toBeLessThan(2e-6);
      const weight = await model.q_proj.weight.data();
      const quantized = isTransposed
        ? Float32Array.from(weight, (_, i) => weight[(i % columns) * rows + Math.floor(i / columns)] ?? 0)
        : weight;
      const whole = numbers();
      const norm = (of: (i: number) => number): number => Math.hypot(...whole.map((_, i) => of(i)));
      const without = norm((i) => (whole[i] ?? 0) - (quantized[i] ?? 0));
      const error = norm((i) => (whole[i] ?? 0) - (quantized[i] ?? 0) - (delta[i] ?? 0));
      expect(Math.abs(error - golden.error)).toBeLessThan(1e-5);
      expect(error).toBeLessThan(0.85 * without);
    });

test("what it saves is a pair like any other, which loads without the weight of before", async () => {
  const adapter = applyAdapter(new Quantized(), options);
  const x = tensor(numbers().slice(0, 2 * columns), { shape: [2, columns], device: dev });
  await adapter.initialize();
  expect(peftConfig(adapter)["init_lora_weights"]).toBe(true);
  const files = memoryFiles();
  await saveAdapter(adapter, "out", { files });
  const other = new Quantized();
  other.storedWeight = () => null;
  await loadAdapter(other, "out", { files });
  const model = adapter.model as Quantized;
  expect(Array.from(await other.q_proj.forward(x).data())).toEqual(Array.from(await model.q_proj.forward(x).data()));
});

test.each([
  ["a layer that is not quantized", /q_proj is not quantized. Load the model with `quantize`/, { isPacked: false }, null],
  [
    "a model that does not have the weight of before",
    /the weight of q_proj before that is not there\. Load the unquantized checkpoint/,
    {},
    () => null,
  ],
] as const)("%s is refused", async (_name, message, made, storedWeight) => {
  // The device is there once the tests run.
  const model = new Quantized(made);
  if (storedWeight) model.storedWeight = storedWeight;
  const adapter = applyAdapter(model, options);
  await expect(adapter.initialize()).rejects.toThrow(AdapterError);
  await expect(adapter.initialize()).rejects.toThrow(message);
  expect(() => model.q_proj.forward(tensor(new Float32Array(columns), { shape: [1, columns], device: dev }))).toThrow(
    /has no first values yet/,
  );
  expect(() => merge(adapter)).toThrow(AdapterError);
});
