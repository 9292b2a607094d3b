import { grad } from "@lowrank/autograd";
import { type Device, device, fromBytes, memoryFiles, realizeNow, type Tensor, tensor, zeros } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type Adapter,
  AdapterError,
  type AdapterOptions,
  applyAdapter,
  formatReport,
  loadAdapter,
  merge,
  parameterReport,
  saveAdapter,
  type Targets,
  unmerge,
} from "../src/index.js";
import { rows, TinyModel } from "./tiny.js";

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

const quiet = { onWarning: (): void => undefined };
const values = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const expectClose = (a: readonly number[], b: readonly number[], tolerance: number): void => {
  expect(a.length).toBe(b.length);
  expect(Math.max(0, ...a.map((value, i) => Math.abs(value - (b[i] ?? Number.NaN))))).toBeLessThan(tolerance);
};
/** B away from zero, so that the adapter does something. */
function disturb(adapter: Adapter): void {
  for (const [name, parameter] of adapter.namedParameters()) {
    if (name.includes("lora_B")) parameter.assign(rows(dev, parameter.shape[0] ?? 0, parameter.shape[1] ?? 0, 5).mul(0.3));
  }
  realizeNow(adapter.parameters());
}

describe("targets choose layers", () => {
  const cases: readonly [string, Targets, readonly string[]][] = [
    ["a suffix fits every block", ["q_proj"], ["layers.0.q_proj", "layers.1.q_proj"]],
    ["a full name fits itself", ["layers.1.c_fc"], ["layers.1.c_fc"]],
    ["a regular expression fits whole names", ".*\\.0\\.(q_proj|c_fc)", ["layers.0.q_proj", "layers.0.c_fc"]],
    ["all-linear leaves the output layer out", "all-linear", ["layers.0.q_proj", "layers.0.c_fc", "layers.1.q_proj", "layers.1.c_fc"]],
    ["a RegExp fits whole names", /layers\.1\..*/, ["layers.1.q_proj", "layers.1.c_fc"]],
  ];
  test.each(cases)("%s", (_, targets, expected) => {
    const adapter = applyAdapter(new TinyModel(dev), { method: "lora", rank: 2, ...(targets !== undefined && { targets }) });
    expect([...adapter.places.keys()]).toEqual(expected);
  });

  test("layers, exclude, rankPattern and alphaPattern narrow and vary them", () => {
    const adapter = applyAdapter(new TinyModel(dev), {
      method: "lora",
      rank: 2,
      targets: ["q_proj", "c_fc"],
      exclude: ["layers.0.c_fc"],
      rankPattern: { "1.c_fc": 3 },
    });
    const shapes = [...adapter.namedParameters()].map(([name, { shape }]) => `${name} ${shape.join("x")}`);
    expect(shapes).toEqual([
      "base_model.model.layers.0.q_proj.lora_A.weight 2x8",
      "base_model.model.layers.0.q_proj.lora_B.weight 8x2",
      "base_model.model.layers.1.q_proj.lora_A.weight 2x8",
      "base_model.model.layers.1.q_proj.lora_B.weight 8x2",
      "base_model.model.layers.1.c_fc.lora_A.weight 3x8",
      "base_model.model.layers.1.c_fc.lora_B.weight 8x3",
    ]);
    const only = applyAdapter(new TinyModel(dev), { method: "lora", targets: ["q_proj"], layers: [1], layersPattern: "layers" });
    expect(only.places.size).toBe(1);
  });
});

describe("bad options are refused with the fact and the remedy, and nothing is changed", () => {
  const cases: readonly [string, Partial<AdapterOptions>, RegExp][] = [
    ["targets that match nothing list the layers", { targets: ["query"] }, /"query" match no dense layer.*q_proj, c_fc, lm_head/],
    [
      "targets of which some match nothing name those",
      { targets: ["q_proj", "query"] },
      /"query" match no dense layer of the model, the others do.*q_proj/,
    ],
    ["rank 0", { rank: 0 }, /rank is 0\./],
    ["a negative rank", { rank: -4 }, /rank is -4\./],
    ["half a rank", { rank: 2.5 }, /rank is 2\.5\./],
    ["dropout of everything", { dropout: 1 }, /dropout is 1\./],
    ["an invalid expression", { targets: "(" }, /not a valid regular expression/],
    ["an unknown method", { method: "loar" as "lora" }, /no adapter method "loar"\. Choose among .*dora.*lora/],
  ];
  test.each(cases)("%s", (_, options, message) => {
    const model = new TinyModel(dev);
    const attempt = (): Adapter => applyAdapter(model, { method: "lora", targets: ["q_proj"], ...options } as AdapterOptions);
    expect(attempt).toThrow(AdapterError);
    expect(attempt).toThrow(message);
    expect([...model.namedModules().values()].every(({ wrappers }) => wrappers.length === 0)).toBe(true);
  });

  test("a rank above min(in, out) is a warning", () => {
    const warnings: string[] = [];
    applyAdapter(new TinyModel(dev), { method: "lora", rank: 9, targets: ["layers.0.q_proj"], onWarning: (text) => warnings.push(text) });
    expect(warnings).toEqual(["rank 9 on layers.0.q_proj (8 to 8) is above the full rank 8: it costs more and can learn no more."]);
  });
});

describe.each(["lora", "dora"] as const)("%s", (method) => {
  const options = { method, rank: 2, alpha: 4, targets: ["q_proj", "c_fc"] } as const;

  test("merged logits equal unmerged ones; unmerge restores W0 to 1e-6; both twice are errors", async () => {
    const model = new TinyModel(dev);
    const x = rows(dev, 3, 8, 2);
    const weights = async (): Promise<number[]> => (await Promise.all(model.parameters().map(values))).flat();
    const before = await weights();
    const adapter = applyAdapter(model, options);
    disturb(adapter);
    const unmerged = await values(model.forward(x));
    merge(adapter);
    expect([...model.namedModules().values()].every(({ wrappers }) => wrappers.length === 0)).toBe(true);
    expectClose(await values(model.forward(x)), unmerged, 1e-5);
    expect(() => merge(adapter)).toThrow(/merged already/);
    expect(() => adapter.enable()).toThrow(/merged/);
    unmerge(adapter);
    expectClose(await weights(), before, 1e-6);
    expectClose(await values(model.forward(x)), unmerged, 1e-5);
    expect(() => unmerge(adapter)).toThrow(/not merged/);
  });

  test("bf16 weights come back exactly", async () => {
    const model = new TinyModel(dev);
    const { q_proj } = model.layers[0] ?? expect.fail("no block");
    const bytes = new Uint8Array(128).map((_, i) => (i % 2 === 0 ? i : 0x3e));
    q_proj.weight = fromBytes(bytes, "bf16", [8, 8], dev);
    const before = await values(q_proj.weight);
    const adapter = applyAdapter(model, options);
    disturb(adapter);
    merge(adapter);
    expect(await values(q_proj.weight)).not.toEqual(before);
    unmerge(adapter);
    expect(q_proj.weight.dtype).toBe("bf16");
    expect(await values(q_proj.weight)).toEqual(before);
  });

  test("saved and loaded: same tensors, same output, and the same bytes again", async () => {
    const x = rows(dev, 3, 8, 2);
    const model = new TinyModel(dev);
    const adapter = applyAdapter(model, {
      ...options,
      baseModel: "tiny",
      rslora: true,
      layers: [0, 1],
      layersPattern: "layers",
      exclude: ["layers.1.c_fc"],
    });
    disturb(adapter);
    const files = memoryFiles();
    await saveAdapter(adapter, "a", { files });
    const other = new TinyModel(dev);
    const again = await loadAdapter(other, "a", { files, ...quiet });
    expect(again.method.name).toBe(method);
    // The reference device keeps in float64 what a file rounds to f32.
    expectClose(await values(other.forward(x)), await values(model.forward(x)), 1e-6);
    await saveAdapter(again, "b", { files });
    expect(files.files.get("b/adapter_model.safetensors")).toEqual(files.files.get("a/adapter_model.safetensors"));
    expect(new TextDecoder().decode(files.files.get("b/adapter_config.json"))).toBe(
      new TextDecoder().decode(files.files.get("a/adapter_config.json")),
    );
  });

  test("dropout only while training, on the bypass only", async () => {
    const model = new TinyModel(dev);
    const x = rows(dev, 3, 8, 2);
    const base = await values(model.forward(x));
    const adapter = applyAdapter(model, { ...options, dropout: 0.5 });
    disturb(adapter);
    const evaluated = await values(model.forward(x));
    expect(await values(model.forward(x))).toEqual(evaluated);
    model.train();
    expect(await values(model.forward(x))).not.toEqual(await values(model.forward(x)));
    model.train(false);
    expect(await values(model.forward(x))).toEqual(evaluated);
    adapter.disable();
    expect(await values(model.forward(x))).toEqual(base);
  });
});

test("a tied weight is not merged behind the other's back", () => {
  const model = new TinyModel(dev);
  const [first, second] = model.layers;
  if (first && second) second.q_proj.weight = first.q_proj.weight;
  const adapter = applyAdapter(model, { method: "lora", targets: ["q_proj"] });
  expect(() => merge(adapter)).toThrow(/layers\.0\.q_proj and layers\.1\.q_proj share one weight/);
});

describe("files that do not fit are refused before anything is changed", () => {
  async function saved(
    change: (config: Record<string, unknown>) => void,
    name = "adapter_model.safetensors",
  ): Promise<ReturnType<typeof memoryFiles>> {
    const files = memoryFiles();
    const adapter = applyAdapter(new TinyModel(dev), { method: "lora", rank: 2, targets: ["q_proj"] });
    await saveAdapter(adapter, "a", { files });
    const config = JSON.parse(new TextDecoder().decode(files.files.get("a/adapter_config.json"))) as Record<string, unknown>;
    change(config);
    files.files.set("a/adapter_config.json", new TextEncoder().encode(JSON.stringify(config)));
    const tensors = files.files.get("a/adapter_model.safetensors") ?? new Uint8Array();
    files.files.delete("a/adapter_model.safetensors");
    files.files.set(`a/${name}`, tensors);
    return files;
  }
  const cases: readonly [string, (config: Record<string, unknown>) => void, RegExp][] = [
    [
      "an option that is set and not supported",
      (c) => Object.assign(c, { use_qalora: true, layer_replication: [[0, 1]] }),
      /layer_replication: \[\[0,1\]\], use_qalora: true|use_qalora: true, layer_replication: \[\[0,1\]\]/,
    ],
    ["an option that nobody knows", (c) => Object.assign(c, { use_magic: 3 }), /use_magic: 3/],
    ["biases of an unknown kind", (c) => Object.assign(c, { bias: "some" }), /bias is "some"/],
    ["an initialisation that changes the base", (c) => Object.assign(c, { init_lora_weights: "corda" }), /init_lora_weights: "corda"/],
    [
      "a method of another kind",
      (c) => Object.assign(c, { peft_type: "POLY" }),
      /type POLY are not supported\. Supported are adalora, bitfit/,
    ],
    ["a rank that is no number", (c) => Object.assign(c, { r: "8" }), /r is "8", which is not a number/],
    [
      "another rank than the tensors have",
      (c) => Object.assign(c, { r: 4 }),
      /does not fit this model\. 4 tensors differ in shape: .*lora_A\.weight is \[2, 8\] in the file, \[4, 8\] here/,
    ],
    [
      "other layers than the tensors have",
      (c) => Object.assign(c, { target_modules: ["c_fc"] }),
      /4 tensors are missing: .*c_fc.*4 tensors have no place in the model: .*q_proj/,
    ],
  ];
  test.each(cases)("%s", async (_, change, message) => {
    const model = new TinyModel(dev);
    const files = await saved(change);
    await expect(loadAdapter(model, "a", { files, ...quiet })).rejects.toThrow(message);
    expect([...model.namedModules().values()].every(({ wrappers }) => wrappers.length === 0)).toBe(true);
  });

  test("a pickle names the remedy", async () => {
    const files = await saved(() => undefined, "adapter_model.bin");
    await expect(loadAdapter(new TinyModel(dev), "a", { files })).rejects.toThrow(
      /adapter_model\.bin, a Python pickle.*safe_serialization=True/,
    );
  });

  test("unset options of other versions of PEFT are no matter", async () => {
    const files = await saved((c) => Object.assign(c, { some_new_config: null, another: false, list: [], peft_version: "0.30.0" }));
    await expect(loadAdapter(new TinyModel(dev), "a", { files })).resolves.toBeDefined();
  });
});

test("the report counts what is trained and what is not, in numbers and bytes", () => {
  const model = new TinyModel(dev);
  const adapter = applyAdapter(model, { method: "lora", rank: 2, targets: ["q_proj"] });
  const report = parameterReport(model, adapter, "adamw");
  const frozen = 2 * (64 + 64 + 8) + 40;
  expect(report).toEqual({
    trainable: 64,
    frozen,
    trainablePercent: (100 * 64) / (64 + frozen),
    weightBytes: { trainable: 256, frozen: 4 * frozen },
    gradientBytes: 256,
    optimizerBytes: 512,
  });
  expect(parameterReport(model, "full", "sgd")).toMatchObject({ trainable: frozen, frozen: 0, trainablePercent: 100, optimizerBytes: 0 });
  expect(formatReport(report)).toBe(
    [
      "         parameters    share  weights  gradients  optimizer",
      "trained          64  17.02 %    256 B      256 B      512 B",
      "frozen          312  82.98 %   1.2 kB        0 B        0 B",
    ].join("\n"),
  );
});

test("gradients of A and B, and of DoRA's magnitude, equal central differences", async () => {
  for (const method of ["lora", "dora"] as const) {
    const model = new TinyModel(dev);
    const adapter = applyAdapter(model, { method, rank: 2, alpha: 4, targets: ["c_fc"] });
    if (method === "lora") disturb(adapter);
    const x = rows(dev, 3, 8, 2);
    const y = rows(dev, 3, 5, 3);
    const grads = grad(model.loss(x, y), adapter.parameters());
    let index = 0;
    for (const [name, parameter] of adapter.namedParameters()) {
      const expected = (await values(grads[index++] ?? zeros([1], { device: dev })))[0] ?? 0;
      // A constant to the gradient, DoRA's norm makes those of A and B differ from the true ones on purpose.
      if (method === "dora" && !name.includes("magnitude")) continue;
      const start = Array.from(await parameter.data());
      const at = async (step: number): Promise<number> => {
        parameter.assign(
          tensor(new Float32Array(start.map((value, i) => value + (i === 0 ? step : 0))), { device: dev, shape: parameter.shape }),
        );
        return model.loss(x, y).item();
      };
      const measured = ((await at(1e-2)) - (await at(-1e-2))) / 2e-2;
      await at(0);
      // The step squared, times the third derivative.
      expect(Math.abs(measured - expected), `${method} ${name}`).toBeLessThan(2e-3 * Math.max(1, Math.abs(expected)));
    }
  }
});
