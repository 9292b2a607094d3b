// Slow: some hundred models, each planned for its logits, its gradients and its generation.
// Model families against transformers and PEFT: logits, loss, the greedy continuation through the cache, LoRA's gradients, merging.
import { join } from "node:path";
import { grad } from "@lowrank/autograd";
import { loadAdapter, merge } from "@lowrank/lora";
import { generate, loadModel } from "@lowrank/models";
import { realize, type SafetensorsFile, type Tensor } from "@lowrank/tensor";
import { inShare, testDevice } from "test-support";
import { describe, expect, test } from "vitest";
import { type FamilyCase, familyCases } from "./family.js";
import { expectLogits, gradientName, integers, type Model, opened, relativeNorm, tolerance } from "./golden.js";

/** Of ‖gradient‖: models with caps, multipliers and several norms a layer spread f32's rounding further than Llama's 1e-4. */
const gradientTolerance = 2e-4;

const modelOf = async ({ folder }: FamilyCase): Promise<Model> =>
  (await loadModel(join(folder, "model"), { device: await testDevice() })).model;

const io = (golden: FamilyCase, use: (file: SafetensorsFile) => Promise<void>): Promise<void> =>
  opened(join(golden.folder, "io.safetensors"), use);

async function expectLoss(loss: Tensor, file: SafetensorsFile, name: string): Promise<void> {
  const [wanted = Number.NaN] = await file.values(name);
  expect(Math.abs((await loss.item()) - wanted) / wanted, `relative error of ${name}`).toBeLessThan(tolerance.loss);
}

async function expectGradients(grads: ReadonlyMap<string, Tensor>, file: SafetensorsFile): Promise<void> {
  const wanted = new Map([...file.entries.keys()].filter((name) => name.startsWith("grads.")).map((name) => [gradientName(name), name]));
  expect([...grads.keys()].sort()).toEqual([...wanted.keys()].sort());
  for (const [name, actual] of grads)
    expect(await relativeNorm(actual, await file.values(wanted.get(name) ?? "")), name).toBeLessThan(gradientTolerance);
}

describe.each(inShare(familyCases, ({ name }) => name))("$name", (golden) => {
  test("logits, loss, and the greedy continuation through the cache", async () => {
    const model = await modelOf(golden);
    await io(golden, async (file) => {
      const ids = await integers(file, "input_ids");
      const [logits, loss] = [model.forward(ids), model.loss(ids, await integers(file, "labels"))];
      await realize(logits, loss);
      await expectLogits(logits, file, "logits_base");
      await expectLoss(loss, file, "loss_base");
      const [prompt, wanted] = [[...(await file.values("prompt"))], [...(await file.values("greedy"))]];
      expect(await generate(model, prompt, { maxNewTokens: wanted.length, stopTokens: [] })).toEqual(wanted);
    });
    model.dispose();
  });

  test("logits, loss and gradients of PEFT's adapter, and its logits when merged", async () => {
    const model = await modelOf(golden);
    const adapter = await loadAdapter(model, join(golden.folder, "adapter"));
    await io(golden, async (file) => {
      const ids = await integers(file, "input_ids");
      const [logits, loss] = [model.forward(ids), model.loss(ids, await integers(file, "labels"))];
      const names = [...adapter.namedParameters().keys()];
      const grads = grad(loss, adapter.parameters());
      await realize(logits, loss, ...grads);
      await expectLogits(logits, file, "logits_adapter");
      await expectLoss(loss, file, "loss");
      await expectGradients(new Map(grads.map((gradient, i) => [names[i] ?? "", gradient])), file);
      merge(adapter);
      await expectLogits(model.forward(ids), file, "logits_merged");
    });
    model.dispose();
  });
});
