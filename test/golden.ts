// Reading cases of reference values, and holding a model and its adapter to them. test/goldens, packages/lora/test/goldens and shared/goldens
// have one format.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { grad, optim } from "@lowrank/autograd";
import { type Adapter, AdapterError, type LoadOptions, loadAdapter, merge, parameterReport, unmerge } from "@lowrank/lora";
import { loadModel, type TrainingRules } from "@lowrank/models";
import { compile, type Device, fileSource, readSafetensors, type SafetensorsFile, type Tensor, tensor } from "@lowrank/tensor";
import { drawnIndex, inShare, sharedDir, testBackend, testDevice } from "test-support";
import { expect, test } from "vitest";

/** f32 sums of other orders than PyTorch's. */
export const tolerance = { logits: 1e-4, loss: 1e-5, gradient: 1e-4, curve: 1e-3, final: 1e-2 };

export interface Case {
  readonly name: string;
  readonly folder: string;
  readonly modelFolder: string;
  readonly isAdapter: boolean;
  readonly settings: Settings;
}

export interface Settings {
  readonly kind?: "llama" | "gpt2";
  readonly model?: string;
  readonly trainable?: number;
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  /** LoRA+ has its own. */
  readonly weight_decay?: number;
  readonly loraplus_weight_decay?: number;
  readonly loraplus_lr_ratio?: number;
  readonly loraplus_lr_embedding?: number;
  /** "LoRA+" and "LoRA-FA" are ways to train LoRA. */
  readonly optimizer?: string;
  /** The adapter method, as PEFT calls its type. */
  readonly method?: string;
  /** False where the method cannot be merged. */
  readonly merge?: boolean;
  /** False where PEFT's merged model computes something else than its adapter did. */
  readonly merge_exact?: boolean;
}

/** Those of a file's cases that this run takes. */
export const casesInShare = (of: readonly Case[]): readonly Case[] => inShare(of, ({ name }) => name);

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

const folder = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** Full fine-tuning, LoRA and DoRA: the repository's cases, and those beside it. */
export const cases: readonly Case[] = inThisRun([...casesIn(folder("./goldens"), "own"), ...casesIn(sharedDir("goldens"), "shared")]);

/** The cases of every method, told apart by `settings.method`, however few of them this backend runs. */
export const everyMethodCase: readonly Case[] = casesIn(folder("../packages/lora/test/goldens"), "methods");

/** Those of them that this backend runs. */
export const methodCases: readonly Case[] = inThisRun(onThisBackend(everyMethodCase));

/**
 * All of them on the cpu and on SwiftShader. lavapipe compiles each shader for a tenth of a second, and a case has a hundred: there the first of
 * each method and model stands for the others, which run the same shaders on SwiftShader.
 */
function onThisBackend(all: readonly Case[]): Case[] {
  if (testBackend() !== "lavapipe") return [...all];
  const kinds = new Set<string>();
  return all.filter(({ settings, modelFolder }) => {
    const kind = `${settings.method} ${modelFolder}`;
    return !kinds.has(kind) && kinds.add(kind);
  });
}

/**
 * All of them, or with LOWRANK_GOLDENS=drawn one of each method, drawn by LOWRANK_GOLDEN_SEED, or with LOWRANK_GOLDENS=rest the others:
 * `npm test` runs the first on SwiftShader, and `npm run test:all` adds the second.
 */
function inThisRun(all: Case[]): Case[] {
  const part = process.env["LOWRANK_GOLDENS"] ?? "all";
  if (part === "all") return all;
  const byMethod = new Map<string, Case[]>();
  for (const golden of all) byMethod.set(methodOf(golden), [...(byMethod.get(methodOf(golden)) ?? []), golden]);
  const drawn = new Set([...byMethod].map(([method, of]) => of[drawnIndex(method, of.length)]));
  return all.filter((golden) => drawn.has(golden) === (part === "drawn"));
}

/** The method as the library calls it, near enough to tell methods apart. */
function methodOf({ name, folder: place, isAdapter, settings }: Case): string {
  if (!isAdapter) return settings.method ?? "FULL";
  const config = JSON.parse(readFileSync(join(place, "adapter_init", "adapter_config.json"), "utf8")) as { readonly use_dora?: boolean };
  if (config.use_dora === true) return "DORA";
  // Three methods of one file format, told apart by the cases' names.
  return settings.method === "BOTTLENECK" ? (/-(\w+)/.exec(name)?.[1] ?? name) : (settings.method ?? "LORA");
}

const device = (): Promise<Device> => testDevice();

export type Model = Awaited<ReturnType<typeof loadModel>>["model"];

export async function modelOf({ modelFolder }: Case): Promise<Model> {
  return (await loadModel(modelFolder, { device: await device() })).model;
}

export async function integers(file: SafetensorsFile, name: string): Promise<Tensor> {
  return tensor(Int32Array.from(await file.values(name)), {
    dtype: "i32",
    device: await device(),
    shape: file.entries.get(name)?.shape ?? [],
  });
}

export async function expectLogits(actual: Tensor, file: SafetensorsFile, name: string): Promise<void> {
  expect(actual.shape).toEqual(file.entries.get(name)?.shape);
  const [got, wanted] = [await actual.data(), await file.values(name)];
  let worst = 0;
  for (const [i, value] of wanted.entries()) worst = Math.max(worst, Math.abs(value - (got[i] ?? Number.NaN)));
  expect(worst, `${name}: largest difference`).toBeLessThan(tolerance.logits);
}

/** ‖g − g*‖ / ‖g*‖ */
export async function relativeNorm(actual: Tensor, wanted: ArrayLike<number>): Promise<number> {
  return relativeDistance(await actual.data(), wanted);
}

function relativeDistance(got: ArrayLike<number>, wanted: ArrayLike<number>): number {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < wanted.length; i++) {
    difference += ((got[i] ?? Number.NaN) - (wanted[i] ?? 0)) ** 2;
    norm += (wanted[i] ?? 0) ** 2;
  }
  return Math.sqrt(difference / Math.max(norm, 1e-30));
}

/** Our name of the parameter whose gradient a case's file calls `stored`: PEFT's, without the adapter's name and its holders; AdapterHub's keep it. */
export function gradientName(stored: string): string {
  return stored
    .replace(/^grads\./, "")
    .replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
    .replace(".modules_to_save.default.", ".")
    .replace(/(?<!\.adapters)\.default(?=\.|$)/, "");
}

export async function expectLossAndGradients(
  model: Model,
  parameters: ReadonlyMap<string, Tensor>,
  file: SafetensorsFile,
  rules: TrainingRules = {},
): Promise<void> {
  const plain = model.loss(await integers(file, "input_ids"), await integers(file, "labels"));
  const loss = rules.regularization ? plain.add(rules.regularization()) : plain;
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

/** The loss at each step of the case's training, and with it whatever the method does between steps. */
export async function expectCurve(
  model: Model,
  named: ReadonlyMap<string, Tensor>,
  file: SafetensorsFile,
  settings: Settings,
  rules: TrainingRules = {},
  makeOptimizer: (parameters: ReadonlyMap<string, Tensor>, settings: Settings, rules: TrainingRules) => optim.Optimizer = adamwOf,
): Promise<void> {
  const optimizer = makeOptimizer(named, settings, rules);
  const parameters = [...named.values()];
  const byName = (grads: readonly Tensor[]): Map<string, Tensor> => new Map([...named.keys()].map((name, i) => [name, grads[i] as Tensor])); // one a parameter
  const step = compile((ids: Tensor) => {
    const plain = model.loss(ids, ids);
    const loss = rules.regularization ? plain.add(rules.regularization()) : plain;
    const grads = byName(grad(loss, parameters));
    const changed = rules.changeGradients?.(grads) ?? grads;
    rules.beforeUpdate?.();
    optimizer.update([...changed.values()]);
    rules.afterUpdate?.(changed);
    return loss;
  });
  const dev = await device();
  const [, batch = 0, seq = 0] = file.entries.get("batches")?.shape ?? [];
  const batches = await file.values("batches");
  for (const [i, wanted] of (await file.values("losses")).entries()) {
    const ids = Int32Array.from(batches.slice(i * batch * seq, (i + 1) * batch * seq));
    const loss = await step(tensor(ids, { dtype: "i32", device: dev, shape: [batch, seq] })).item();
    expect(Math.abs(loss - wanted) / wanted, `relative error of the loss at step ${i}`).toBeLessThan(tolerance.curve);
    await rules.afterStep?.(i + 1);
  }
  step.dispose();
}

function adamwOf(
  named: ReadonlyMap<string, Tensor>,
  { lr: learningRate, betas, eps, weight_decay, loraplus_weight_decay = 0 }: Settings,
  { learningRateFactors, weightDecays, adamw = {} }: TrainingRules,
): optim.Optimizer {
  const groups = [...named].map(([name, parameter]) => ({
    parameters: new Map([[name, parameter]]),
    learningRateFactor: learningRateFactors?.get(name) ?? 1,
    weightDecay: weightDecays?.get(name) ?? weight_decay ?? loraplus_weight_decay,
  }));
  return optim.adamw(groups, { learningRate, betas, eps, ...adamw });
}

export async function opened<T>(path: string, use: (file: SafetensorsFile) => Promise<T>): Promise<T> {
  const file = await readSafetensors(await fileSource(path));
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

export const io = <T>(golden: Case, use: (file: SafetensorsFile) => Promise<T>): Promise<T> =>
  opened(join(golden.folder, "io.safetensors"), use);

export const load = (model: Model, golden: Case, name: string, options: Partial<LoadOptions> = {}): Promise<Adapter> =>
  loadAdapter(model, join(golden.folder, name), options);

/** A head that is trained whole unties: PEFT's merged model then has two weights, ours is one checkpoint with one. */
export const mergesShared: ReadonlySet<string> = new Set(["methods/llama-tied-modules-to-save-untied"]);

/**
 * A trained tensor without what changes nothing: softmax does not see a bias of the keys, so that its gradient is rounding alone, which Adam
 * blows up to steps like any other.
 */
function counted(name: string, values: ArrayLike<number>): ArrayLike<number> {
  const share = values.length / 3;
  return name.endsWith("c_attn.lora_B.bias") ? Array.from(values).filter((_, i) => i < share || i >= 2 * share) : values;
}

/** How a case is trained where its files do not say: with LoRA+ or LoRA-FA. */
function trainingOf({ optimizer, lr, loraplus_lr_ratio: loraPlusRatio, loraplus_lr_embedding: embedding }: Settings): Partial<LoadOptions> {
  if (optimizer === "LoRA-FA") return { training: { freezeA: true } };
  if (optimizer !== "LoRA+" || loraPlusRatio === undefined) return {};
  return { training: { loraPlusRatio, ...(embedding !== undefined && { loraPlusEmbeddingRatio: embedding / lr }) } };
}

/** The tests of a case with an adapter, for inside a `describe`. */
export function testAdapter(golden: Case): void {
  const options = trainingOf(golden.settings);
  test("key names and the number of trained parameters", async () => {
    const model = await modelOf(golden);
    const adapter = await load(model, golden, "adapter_init", options);
    await opened(join(golden.folder, "adapter_init", "adapter_model.safetensors"), async (file) => {
      const shapes = (of: Iterable<[string, { readonly shape: readonly number[] }]>): string[] =>
        [...of].map(([name, { shape }]) => `${name} ${shape.join()}`).sort();
      expect(shapes(adapter.savedTensors())).toEqual(shapes(file.entries));
    });
    expect(parameterReport(model, adapter).trainable).toBe(golden.settings.trainable);
  });

  test("logits without and with the adapter, loss and every gradient", async () => {
    const model = await modelOf(golden);
    await io(golden, async (file) => {
      const ids = await integers(file, "input_ids");
      await expectLogits(model.forward(ids), file, "logits_base");
      const adapter = await load(model, golden, "adapter_init", options);
      await expectLogits(model.forward(ids), file, "logits_adapter");
      // BitFit's gradients are kept under the model's names, its file under PEFT's.
      const prefix = golden.settings.method === "BITFIT" ? /^base_model\.model\./ : /^/;
      const named = new Map([...adapter.namedParameters()].map(([name, parameter]) => [name.replace(prefix, ""), parameter]));
      await expectLossAndGradients(model, named, file, adapter.training);
    });
  });

  test("the loss at every step of training with AdamW, and the tensors at its end", async () => {
    const model = await modelOf(golden);
    const adapter = await load(model, golden, "adapter_init", options);
    await io(golden, (file) => expectCurve(model, adapter.namedParameters(), file, golden.settings, adapter.training));
    await opened(join(golden.folder, "adapter_final", "adapter_model.safetensors"), async (file) => {
      for (const [name, parameter] of adapter.savedTensors()) {
        const [got, wanted] = [counted(name, await parameter.data()), counted(name, await file.values(name))];
        expect(relativeDistance(got, wanted), name).toBeLessThan(tolerance.final);
      }
    });
  });

  test("logits of the trained adapter, merged and unmerged", async () => {
    const model = await modelOf(golden);
    const adapter = await load(model, golden, "adapter_final", options);
    await io(golden, async (file) => {
      const ids = await integers(file, "input_ids");
      await expectLogits(model.forward(ids), file, "logits_final");
      // No PEFT merges BitFit, but it can be: its biases become the model's. Where PEFT changes what else shares a weight, ours refuses.
      const isRefused = golden.settings.merge_exact === false || mergesShared.has(golden.name);
      if (isRefused) expect(() => merge(adapter)).toThrow(/share one weight/);
      else if (golden.settings.merge === false && golden.settings.method !== "BITFIT") expect(() => merge(adapter)).toThrow(AdapterError);
      else {
        merge(adapter);
        await expectLogits(model.forward(ids), file, file.entries.has("logits_merged") ? "logits_merged" : "logits_final");
        unmerge(adapter);
        await expectLogits(model.forward(ids), file, "logits_final");
      }
      adapter.disable();
      await expectLogits(model.forward(ids), file, "logits_base");
    });
  });
}
