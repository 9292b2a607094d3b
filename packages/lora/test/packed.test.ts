import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { grad, nn, optim } from "@lowrank/autograd";
import { type CausalLM, loadModel, saveModel } from "@lowrank/models";
import { type Device, memoryFiles, ShapeError, type Tensor, tensor } from "@lowrank/tensor";
import { testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import {
  AdapterError,
  type AdapterOptions,
  applyAdapter,
  merge,
  mergedParameters,
  NotApplicableError,
  parameterReport,
  unmerge,
} from "../src/index.js";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

/** One of the tiny folders that packages/models/test/checkpoint/quantised.py made, in its blocks or as the same numbers in f32. */
async function modelOf(name: string, dtype: "auto" | "f32" = "auto"): Promise<CausalLM> {
  const { config, files } = JSON.parse(
    readFileSync(new URL(`../../models/test/checkpoint/quantised/${name}.json`, import.meta.url), "utf8"),
  );
  const held = Object.entries(files as Record<string, string>).map(([path, text]) => [
    `m/${path}`,
    new Uint8Array(gunzipSync(Buffer.from(text, "base64"))),
  ]);
  const { model } = await loadModel("m", {
    device: dev,
    dtype,
    files: memoryFiles({ "m/config.json": JSON.stringify(config), ...Object.fromEntries(held) }),
  });
  return model;
}

const ids = (): Tensor =>
  tensor(
    [
      [5, 9, 3, 17, 22, 8],
      [4, 4, 19, 6, 7, 11],
    ],
    { dtype: "i32", device: dev },
  );

/** Loss and gradients of an adapter's parameters, whose first values depend on the seed alone. */
async function trained(model: CausalLM, options: AdapterOptions): Promise<number[][]> {
  const adapter = applyAdapter(model, { seed: 3, ...options } as AdapterOptions);
  await adapter.initialize();
  // Not at 0, where half of the gradients are.
  for (const [name, parameter] of adapter.namedParameters())
    if (/lora_B|hada_w2_b|lokr_w2|oft_R|vera_lambda_b|bone|miss/.test(name))
      parameter.assign(
        tensor(
          Float32Array.from({ length: parameter.size }, (_, i) => Math.sin(i) / 50),
          { shape: parameter.shape, device: dev },
        ),
      );
  const loss = model.loss(ids(), ids());
  const results = [loss, ...grad(loss, adapter.parameters())];
  const values: number[][] = [];
  for (const result of results) values.push(Array.from(await result.data()));
  return values;
}

const methods: Readonly<Record<string, AdapterOptions>> = {
  lora: { method: "lora", rank: 4 },
  dora: { method: "dora", rank: 4 },
  pissa: { method: "lora", rank: 4, init: "pissa" },
  olora: { method: "lora", rank: 4, init: "olora" },
  vera: { method: "vera", rank: 4 },
  loha: { method: "loha", rank: 4 },
  lokr: { method: "lokr", rank: 4 },
  oft: { method: "oft", blockSize: 8 },
  ia3: { method: "ia3" },
  prefix: { method: "prefix", virtualTokens: 3 },
  prompt: { method: "prompt", virtualTokens: 3 },
};

/** Shaders take a software adapter long: there, the plain one. */
const cases: readonly (readonly [string, string])[] =
  testBackend() === "cpu"
    ? [
        ...Object.keys(methods).map((method) => ["nf4-bias-sharded", method] as const),
        ["gptq-2bit-v2", "dora"],
        ["mlx-tied-unaligned", "lora"],
        ["mixtral-nf4", "lora"],
        ["int8", "lora"],
      ]
    : [["nf4-bias-sharded", "lora"]];

describe("training on blocks = training on the same numbers", () => {
  for (const [folder, method] of cases)
    test(`${method} on ${folder}`, async () => {
      const [packed, dense] = [await modelOf(folder), await modelOf(folder, "f32")];
      expect([...packed.namedParameters().values()].some(({ packing }) => packing)).toBe(true);
      const [got, wanted] = [
        await trained(packed, methods[method] as AdapterOptions),
        await trained(dense, methods[method] as AdapterOptions),
      ];
      expect(got.length).toBe(wanted.length);
      for (const [i, values] of wanted.entries()) {
        const scale = Math.max(...values.map(Math.abs), 1e-3);
        // Sums of products in another order.
        for (const [at, value] of values.entries()) expect(Math.abs((got[i]?.[at] ?? Number.NaN) - value)).toBeLessThan(1e-4 * scale);
      }
      packed.dispose();
      dense.dispose();
    });
});

const packedIn = (model: CausalLM): number => [...model.namedParameters().values()].filter(({ packing }) => packing).length;
const logitsOf = async (model: CausalLM): Promise<ArrayLike<number>> => model.forward(ids()).data();
const worstOf = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - (b[i] ?? Number.NaN))));

describe("what blocks cannot take", () => {
  test("a merge is refused with the way that works, which then does, and is undone", async () => {
    const model = await modelOf("nf4-bias-sharded");
    const adapter = applyAdapter(model, { method: "lora", rank: 4, seed: 1, targets: ["q_proj", "up_proj"] });
    for (const [name, parameter] of adapter.namedParameters())
      if (name.includes("lora_B"))
        parameter.assign(tensor(new Float32Array(parameter.size).fill(0.05), { shape: parameter.shape, device: dev }));
    const before = await logitsOf(model);
    expect(() => merge(adapter)).toThrow(AdapterError);
    expect(() => merge(adapter)).toThrow(/lie in blocks \(nf4\).*take its weights out of their blocks \(`await nn\.unpack\(model\)`\)/);
    expect(worstOf(await logitsOf(model), before)).toBe(0);
    // Of the library's other way, nothing is asked: values are made of the blocks as they are written.
    const written = mergedParameters([adapter]);
    expect([...written.keys()]).toEqual(["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight"]);
    const count = packedIn(model);
    const changed = await nn.unpack(model, { only: (name) => /q_proj|up_proj/.test(name) });
    expect(changed).toEqual(["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight"]);
    expect(packedIn(model)).toBe(count - 2);
    const rounded = await logitsOf(model);
    // bf16 keeps 8 bits of each weight.
    expect(worstOf(rounded, before)).toBeLessThan(0.03);
    merge(adapter);
    expect(worstOf(await logitsOf(model), rounded)).toBeLessThan(0.03);
    unmerge(adapter);
    expect(worstOf(await logitsOf(model), rounded)).toBe(0);
    model.dispose();
  });

  test("full fine-tuning, and methods that train the model's own numbers", async () => {
    const model = await modelOf("nf4-bias-sharded");
    expect(() => optim.adamw(model.namedParameters(), { learningRate: 0.1 })).toThrow(ShapeError);
    expect(() => optim.adamw(model.namedParameters(), { learningRate: 0.1 })).toThrow(
      /q_proj\.weight is packed as nf4: blocks take no steps\. Train an adapter/,
    );
    expect(() => applyAdapter(model, { method: "norms", targets: ["q_proj"] })).toThrow(NotApplicableError);
    expect(() => applyAdapter(model, { method: "norms", targets: ["q_proj"] })).toThrow(
      /norms trains model\.layers\.0\.self_attn\.q_proj\.weight itself, which is packed as nf4/,
    );
    // Norms and biases themselves are not.
    expect(applyAdapter(model, { method: "norms" }).parameters().length).toBe(3);
    model.dispose();
  });
});

test("a report counts the bytes of blocks", async () => {
  const [packed, dense] = [await modelOf("nf4-bias-sharded"), await modelOf("nf4-bias-sharded", "f32")];
  const reportOf = (model: CausalLM) => parameterReport(model, applyAdapter(model, { method: "lora", rank: 2 }));
  const [small, large] = [reportOf(packed), reportOf(dense)];
  expect(small.frozen).toBe(large.frozen);
  const held = [...packed.namedParameters().values()].reduce((sum, t) => sum + (t.packing?.bytes ?? t.storage?.bytes ?? 0), 0);
  expect(small.weightBytes.frozen).toBe(held);
  expect(small.weightBytes.frozen).toBeLessThan(0.3 * large.weightBytes.frozen);
  packed.dispose();
  dense.dispose();
});

test("a model in blocks is saved as numbers in bf16, tied ones and pieces too", async () => {
  for (const name of ["mlx-tied-unaligned", "gpt2-nf4-nested", "mixtral-gptq"]) {
    const model = await modelOf(name);
    const files = memoryFiles();
    await saveModel(model, "out", { files });
    const config = JSON.parse(new TextDecoder().decode(files.files.get("out/config.json")));
    expect(config).not.toHaveProperty("quantization_config");
    expect(config).not.toHaveProperty("quantization");
    const { model: again } = await loadModel("out", { device: dev, files });
    expect(packedIn(again)).toBe(0);
    expect(
      new Set(
        [...again.namedParameters().entries()]
          .filter(([key]) => /proj|attn|experts/.test(key) && !/bias/.test(key))
          .map(([, { dtype }]) => dtype),
      ),
    ).toEqual(new Set(["bf16"]));
    expect(worstOf(await logitsOf(again), await logitsOf(model))).toBeLessThan(0.05);
    model.dispose();
    again.dispose();
  }
});
