// Against PyTorch, transformers and PEFT: the repository's own cases (test/goldens/make_goldens.py) and, where they lie beside the clone, the
// larger ones of shared/goldens. Both are read by the same code.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { grad, optim } from "@lowrank/autograd";
import { type Adapter, loadAdapter, merge, parameterReport, unmerge } from "@lowrank/lora";
import { loadModel } from "@lowrank/models";
import { compile, type Device, fileSource, readSafetensors, type SafetensorsFile, type Tensor, tensor } from "@lowrank/tensor";
import { sharedDir, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";

/** f32 sums of other orders than PyTorch's. */
const tolerance = { logits: 1e-4, loss: 1e-5, gradient: 1e-4, curve: 1e-3, final: 1e-2 };

interface Case {
  readonly name: string;
  readonly folder: string;
  readonly modelFolder: string;
  readonly isAdapter: boolean;
  readonly settings: Settings;
}

interface Settings {
  readonly kind?: "llama" | "gpt2";
  readonly model?: string;
  readonly trainable?: number;
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weight_decay: number;
}

function casesIn(root: string | null, label: string): Case[] {
  if (!root) return [];
  return readdirSync(root)
    .filter((name) => existsSync(join(root, name, "case.json")))
    .map((name) => {
      const folder = join(root, name);
      const settings = JSON.parse(readFileSync(join(folder, "case.json"), "utf8")) as Settings;
      const shared = settings.kind === "llama" ? join("..", "..", "models", "stories260K") : join("..", "gpt2-full", "model");
      const modelFolder = join(folder, settings.model ?? shared);
      return { name: `${label}/${name}`, folder, modelFolder, isAdapter: existsSync(join(folder, "adapter_init")), settings };
    });
}

const cases = [...casesIn(fileURLToPath(new URL("./goldens", import.meta.url)), "own"), ...casesIn(sharedDir("goldens"), "shared")];

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

type Model = Awaited<ReturnType<typeof loadModel>>["model"];

async function modelOf({ modelFolder }: Case): Promise<Model> {
  return (await loadModel(modelFolder, { device: dev })).model;
}

async function integers(file: SafetensorsFile, name: string): Promise<Tensor> {
  return tensor(Int32Array.from(await file.values(name)), { dtype: "i32", device: dev, shape: file.entries.get(name)?.shape ?? [] });
}

async function expectLogits(actual: Tensor, file: SafetensorsFile, name: string): Promise<void> {
  expect(actual.shape).toEqual(file.entries.get(name)?.shape);
  const [got, wanted] = [await actual.data(), await file.values(name)];
  let worst = 0;
  for (const [i, value] of wanted.entries()) worst = Math.max(worst, Math.abs(value - (got[i] ?? Number.NaN)));
  expect(worst, `${name}: largest difference`).toBeLessThan(tolerance.logits);
}

/** ‖g − g*‖ / ‖g*‖ */
async function relativeNorm(actual: Tensor, wanted: ArrayLike<number>): Promise<number> {
  const got = await actual.data();
  let [difference, norm] = [0, 0];
  for (let i = 0; i < wanted.length; i++) {
    difference += ((got[i] ?? Number.NaN) - (wanted[i] ?? 0)) ** 2;
    norm += (wanted[i] ?? 0) ** 2;
  }
  return Math.sqrt(difference / Math.max(norm, 1e-30));
}

/** The name under which a file of a case has a parameter's gradient, without PEFT's adapter name. */
function gradientName(stored: string): string {
  return stored
    .replace(/^grads\./, "")
    .replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
    .replace(".default.", ".");
}

async function expectLossAndGradients(model: Model, parameters: ReadonlyMap<string, Tensor>, file: SafetensorsFile): Promise<void> {
  const loss = model.loss(await integers(file, "input_ids"), await integers(file, "labels"));
  const grads = grad(loss, [...parameters.values()]);
  const [wantedLoss = 0] = await file.values("loss");
  expect(Math.abs((await loss.item()) - wantedLoss) / wantedLoss, "relative error of the loss").toBeLessThan(tolerance.loss);
  const stored = [...file.entries.keys()].filter((name) => name.startsWith("grads."));
  expect(stored.map(gradientName).sort()).toEqual([...parameters.keys()].sort());
  const order = [...parameters.keys()];
  for (const name of stored) {
    const actual = grads[order.indexOf(gradientName(name))];
    if (!actual) expect.fail(name);
    expect(await relativeNorm(actual, await file.values(name)), name).toBeLessThan(tolerance.gradient);
  }
}

async function expectCurve(model: Model, parameters: readonly Tensor[], file: SafetensorsFile, settings: Settings): Promise<void> {
  const { lr: learningRate, betas, eps, weight_decay: weightDecay } = settings;
  const optimizer = optim.adamw(parameters, { learningRate, betas, eps, weightDecay });
  const step = compile((ids: Tensor) => {
    const loss = model.loss(ids, ids);
    optimizer.update(grad(loss, parameters));
    return loss;
  });
  const [, batch = 0, seq = 0] = file.entries.get("batches")?.shape ?? [];
  const batches = await file.values("batches");
  for (const [i, wanted] of (await file.values("losses")).entries()) {
    const ids = Int32Array.from(batches.slice(i * batch * seq, (i + 1) * batch * seq));
    const loss = await step(tensor(ids, { dtype: "i32", device: dev, shape: [batch, seq] })).item();
    expect(Math.abs(loss - wanted) / wanted, `relative error of the loss at step ${i}`).toBeLessThan(tolerance.curve);
  }
  step.dispose();
}

async function opened<T>(path: string, use: (file: SafetensorsFile) => Promise<T>): Promise<T> {
  const file = await readSafetensors(await fileSource(path));
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

const io = <T>(golden: Case, use: (file: SafetensorsFile) => Promise<T>): Promise<T> => opened(join(golden.folder, "io.safetensors"), use);

const load = (model: Model, golden: Case, name: string): Promise<Adapter> => loadAdapter(model, join(golden.folder, name));

describe.each(cases.filter(({ isAdapter }) => !isAdapter))("$name", (golden) => {
  test("logits, loss and every gradient", async () => {
    const model = await modelOf(golden);
    await io(golden, async (file) => {
      await expectLogits(model.forward(await integers(file, "input_ids")), file, "logits");
      await expectLossAndGradients(model, model.namedParameters(), file);
    });
  });

  test("the loss at every step of full fine-tuning with AdamW", async () => {
    const model = await modelOf(golden);
    await io(golden, (file) => expectCurve(model, model.parameters(), file, golden.settings));
  });
});

describe.each(cases.filter(({ isAdapter }) => isAdapter))("$name", (golden) => {
  test("key names and the number of trained parameters", async () => {
    const model = await modelOf(golden);
    const adapter = await load(model, golden, "adapter_init");
    await opened(join(golden.folder, "adapter_init", "adapter_model.safetensors"), async (file) => {
      const shapes = (of: Iterable<[string, { readonly shape: readonly number[] }]>): string[] =>
        [...of].map(([name, { shape }]) => `${name} ${shape.join()}`).sort();
      expect(shapes(adapter.namedParameters())).toEqual(shapes(file.entries));
    });
    expect(parameterReport(model, adapter).trainable).toBe(golden.settings.trainable);
  });

  test("logits without and with the adapter, loss and every gradient", async () => {
    const model = await modelOf(golden);
    await io(golden, async (file) => {
      const ids = await integers(file, "input_ids");
      await expectLogits(model.forward(ids), file, "logits_base");
      const adapter = await load(model, golden, "adapter_init");
      await expectLogits(model.forward(ids), file, "logits_adapter");
      await expectLossAndGradients(model, adapter.namedParameters(), file);
    });
  });

  test("the loss at every step of training with AdamW, and the tensors at its end", async () => {
    const model = await modelOf(golden);
    const adapter = await load(model, golden, "adapter_init");
    await io(golden, (file) => expectCurve(model, adapter.parameters(), file, golden.settings));
    await opened(join(golden.folder, "adapter_final", "adapter_model.safetensors"), async (file) => {
      for (const [name, parameter] of adapter.namedParameters()) {
        expect(await relativeNorm(parameter, await file.values(name)), name).toBeLessThan(tolerance.final);
      }
    });
  });

  test("logits of the trained adapter, merged and unmerged", async () => {
    const model = await modelOf(golden);
    const adapter = await load(model, golden, "adapter_final");
    await io(golden, async (file) => {
      const ids = await integers(file, "input_ids");
      await expectLogits(model.forward(ids), file, "logits_final");
      merge(adapter);
      await expectLogits(model.forward(ids), file, "logits_merged");
      unmerge(adapter);
      await expectLogits(model.forward(ids), file, "logits_final");
      adapter.disable();
      await expectLogits(model.forward(ids), file, "logits_base");
    });
  });
});
