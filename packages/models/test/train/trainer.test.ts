import { optim } from "@lowrank/autograd";
import { crossEntropy, type Device, Generator, memoryFiles, type Tensor, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { beforeAll, describe, expect, it } from "vitest";
import { collate, type Example } from "../../src/data/index.js";
import {
  evaluator,
  readState,
  type StepMetrics,
  TrainingError,
  type TrainOptions,
  type TrainResult,
  train,
  trainingStep,
} from "../../src/train/index.js";

/** The smallest language model: the next token from the last one through two trained tables, with dropout between. */
function bigram(dev: Device, seed: number) {
  const generator = new Generator(dev, 99);
  const values = (count: number, phase: number): Float32Array =>
    Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7 + phase + seed) * 0.3);
  const embed = tensor(values(7 * 5, 0), { device: dev, shape: [7, 5] });
  const head = tensor(values(5 * 7, 1), { device: dev, shape: [5, 7] });
  let isTraining = false;
  return {
    device: dev,
    generator,
    parameters: new Map([
      ["embed", embed],
      ["head", head],
    ]),
    train(value = true) {
      isTraining = value;
    },
    loss(ids: Tensor, labels: Tensor): Tensor {
      const [batch = 0, seq = 0] = ids.shape;
      let hidden = embed.gather(ids.slice([0, batch], [0, seq - 1]).reshape([batch * (seq - 1)]));
      if (isTraining) hidden = hidden.mul(generator.uniform(hidden.shape).less(0.9).cast("f32")).div(0.9);
      return crossEntropy(hidden.matmul(head), labels.slice([0, batch], [1, seq]).reshape([batch * (seq - 1)]));
    },
  };
}

const examples: Example[] = Array.from({ length: 11 }, (_, line) => {
  const ids = Array.from({ length: 4 + (line % 3) }, (_, i) => (line + 2 * i) % 7);
  return { line, ids, labels: ids.map((id, i) => (i === 0 ? -100 : id)) };
});

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

type Extra = Partial<TrainOptions> & { readonly seedOfModel?: number };
async function run(
  files: ReturnType<typeof memoryFiles>,
  extra: Extra = {},
): Promise<{ result: TrainResult; values: number[]; metrics: StepMetrics[] }> {
  const model = bigram(dev, extra.seedOfModel ?? 0);
  const metrics: StepMetrics[] = [];
  const result = await train({
    model,
    parameters: model.parameters,
    examples,
    lengthLimit: 8,
    steps: 8,
    batchSize: 3,
    seed: 5,
    schedule: optim.cosine({ peak: 0.05, warmup: 2, steps: 8 }),
    generators: [model.generator],
    evaluation: { examples: examples.slice(0, 4), every: 3 },
    folder: { files, path: "run", every: 3, settings: { seed: 5 }, save: async () => void files.files.set("saved", new Uint8Array(1)) },
    onStep: (m) => void metrics.push(m),
    ...extra,
  });
  const values: number[] = [];
  for (const t of model.parameters.values()) values.push(...(await t.data()));
  return { result, values, metrics };
}

describe("train", () => {
  it("gives rules the clipped gradients, and parameters a decay of their own", async () => {
    const sizes: number[] = [];
    const model = bigram(dev, 0);
    const before = await Promise.all([...model.parameters.values()].map(async (t) => Array.from(await t.data())));
    const metrics: StepMetrics[] = [];
    await train({
      model,
      parameters: model.parameters,
      rules: {
        weightDecays: new Map([["embed", 0]]),
        // Nothing moves but by decay.
        changeGradients: (gradients) => {
          sizes.push(gradients.size);
          return new Map([...gradients].map(([name, gradient]) => [name, gradient.mul(0)]));
        },
      },
      examples,
      lengthLimit: 8,
      steps: 2,
      batchSize: 3,
      seed: 5,
      schedule: optim.constant({ peak: 0.5 }),
      weightDecay: 0.5,
      onStep: (m) => void metrics.push(m),
    });
    expect(new Set(sizes)).toEqual(new Set([2]));
    for (const { gradNorm } of metrics) expect(gradNorm).toBeGreaterThan(0);
    const [embed = [], head = []] = await Promise.all([...model.parameters.values()].map(async (t) => Array.from(await t.data())));
    expect(embed).toEqual(before[0]);
    for (const [i, value] of head.entries()) expect(value).toBeCloseTo((before[1]?.[i] ?? 0) * 0.75 ** 2, 6);
  });

  it("lowers the loss and reports every step", async () => {
    const { result, metrics } = await run(memoryFiles(), { steps: 30, schedule: optim.constant({ peak: 0.05 }) });
    expect(result.isFinished).toBe(true);
    expect(result.steps).toBe(30);
    expect(metrics.map(({ step }) => step)).toEqual(Array.from({ length: 30 }, (_, i) => i + 1));
    expect(result.evalLossAfter as number).toBeLessThan((result.evalLossBefore as number) - 0.5);
    expect(metrics.every((m) => Number.isFinite(m.gradNorm) && m.learningRate === 0.05)).toBe(true);
  });

  it("tells each loss that planned kernels before the next step begins, and marks it", async () => {
    const order: string[] = [];
    const seen: StepMetrics[] = [];
    await run(memoryFiles(), {
      rules: { afterStep: async (step) => void order.push(`step ${step} enqueued`) },
      onStep(m) {
        seen.push(m);
        order.push(`loss ${m.step}`);
      },
    });
    expect(order.slice(0, 2)).toEqual(["loss 1", "step 1 enqueued"]);
    for (const { step, isWarmUp } of seen)
      if (isWarmUp) expect(order.indexOf(`loss ${step}`)).toBeLessThan(order.indexOf(`step ${step} enqueued`));
    expect(seen[0]?.isWarmUp).toBe(true);
    expect(seen.some(({ isWarmUp }) => !isWarmUp)).toBe(true);
  });

  it("counts its own steps where it goes on with a run", async () => {
    const files = memoryFiles();
    const abort = new AbortController();
    const part = await run(files, { signal: abort.signal, onStep: (m) => void (m.step === 1 && abort.abort()) });
    const rest = await run(files, { resume: true });
    expect(rest.result.steps).toBe(8);
    expect(part.result.newSteps + rest.result.newSteps).toBe(8);
  });

  it("goes on exactly where it was interrupted, dropout, optimizer and data included", async () => {
    const evaluated: [step: number, loss: number][] = [];
    const onEvaluation = (step: number, loss: number) => void evaluated.push([step, loss]);
    const whole = await run(memoryFiles(), { onEvaluation });
    const evaluations = evaluated.splice(0);
    expect(evaluations.map(([step]) => step)).toEqual([0, 3, 6, 8]);
    // After 3 and 8 the signal ends an evaluation.
    for (const stopAfter of [1, 2, 3, 4, 8]) {
      const files = memoryFiles();
      const abort = new AbortController();
      const part = await run(files, { onEvaluation, signal: abort.signal, onStep: (m) => void (m.step === stopAfter && abort.abort()) });
      expect(part.result.isFinished).toBe(false);
      const state = await readState(files, "run");
      expect(state?.step).toBe(part.result.steps);
      expect(files.files.has("saved")).toBe(true);
      const rest = await run(files, { onEvaluation, resume: true, seedOfModel: 3 });
      expect(rest.result.isFinished).toBe(true);
      expect(evaluated.splice(0)).toEqual(evaluations);
      expect(rest.values).toEqual(whole.values);
      expect(rest.result.evalLossAfter).toBe(whole.result.evalLossAfter);
      expect(rest.result.evalLossBefore).toBe(whole.result.evalLossBefore);
      expect(rest.result.trainLoss).toBe(whole.result.trainLoss);
    }
  });

  it.each([
    ["measures at once where held-out rows are new and the step is one of theirs", 3, 3, [3, 6, 8]],
    ["does not between two evaluations", 4, 3, [6, 8]],
    ["does not where it measures at the end only", 3, 0, [8]],
  ] as const)("a resumed run %s", async (_, stopAfter, every, steps) => {
    const files = memoryFiles();
    const abort = new AbortController();
    const none = { evaluation: undefined } as unknown as Extra; // in place of the held-out rows of other runs
    await run(files, { ...none, signal: abort.signal, rules: { afterStep: async (step) => void (step === stopAfter && abort.abort()) } });
    expect((await readState(files, "run"))?.step).toBe(stopAfter);
    const evaluated: number[] = [];
    const evaluation = { examples: examples.slice(0, 4), every };
    await run(files, { resume: true, evaluation, onEvaluation: (step) => void evaluated.push(step) });
    expect(evaluated).toEqual(steps);
  });

  it("gives the same numbers whether a batch is taken whole or in parts", async () => {
    // Without dropout, which draws anew for each part.
    const plain = { generators: [], evaluation: { examples: examples.slice(0, 2), every: 0 }, schedule: optim.constant({ peak: 0.01 }) };
    const noDropout = async (extra: Extra): Promise<number[]> => {
      const model = bigram(dev, 0);
      model.train = () => {};
      const { folder: _, ...options } = { folder: undefined };
      await train({
        ...plain,
        ...options,
        model,
        parameters: model.parameters,
        examples,
        lengthLimit: 8,
        steps: 4,
        batchSize: 4,
        seed: 5,
        ...extra,
      });
      const values: number[] = [];
      for (const t of model.parameters.values()) values.push(...(await t.data()));
      return values;
    };
    const whole = await noDropout({});
    const parts = await noDropout({ batchSize: 2, accumulate: 2 });
    // f32 sums in another order.
    for (const [i, value] of whole.entries()) expect(parts[i]).toBeCloseTo(value, 5);
  });

  it("stops at a loss that is not finite and keeps the last good checkpoint", async () => {
    const files = memoryFiles();
    await expect(run(files, { schedule: (step) => (step < 4 ? 0.01 : Number.NaN) })).rejects.toThrow(TrainingError);
    expect((await readState(files, "run"))?.step).toBe(3);
    await expect(run(memoryFiles(), { schedule: () => Number.POSITIVE_INFINITY })).rejects.toThrow(
      /Step 2: the loss is NaN\. .*lower --lr.*No checkpoint was written/s,
    );
  });

  it("does not write what the last update has made infinite, and says how to go on", async () => {
    for (const evaluation of [undefined, { examples: examples.slice(0, 4), every: 0 }]) {
      const files = memoryFiles();
      const last = (step: number): number => (step === 7 ? 3e38 : 0.01);
      // Adam's step is about the rate itself, so that two of these are beyond f32.
      const huge = run(files, { schedule: (step) => last(step) * (step === 7 ? 2 : 1), ...(evaluation && { evaluation }) });
      await expect(huge).rejects.toThrow(TrainingError);
      await expect(huge).rejects.toThrow(
        /^Step 8: its update left parameter\.(embed|head) without a finite value at \[\d, \d\]\..*The checkpoint of step 6 is kept\.$/,
      );
      await expect(huge).rejects.toMatchObject({ step: 8, lowerRate: 6e37, checkpointAt: 6 });
      expect((await readState(files, "run"))?.step).toBe(6);
      const rest = await run(files, { resume: true });
      expect(rest.result.isFinished).toBe(true);
    }
  });

  it("does not resume beyond its last step", async () => {
    const files = memoryFiles();
    await run(files);
    await expect(run(files, { resume: true, steps: 5 })).rejects.toThrow(/^run holds a run at step 8, which is beyond the last of 5\./);
  });

  it("keeps the batches of steps apart that run at the same time", async () => {
    const trained = async (areAwaited: boolean): Promise<number[]> => {
      const model = bigram(dev, 0);
      model.train = () => {};
      const optimizer = optim.adamw([{ parameters: model.parameters }]);
      const step = trainingStep({ model, parameters: model.parameters, optimizer, maxGradNorm: 1 });
      const outcomes: Promise<unknown>[] = [];
      for (let i = 0; i < 4; i++) {
        const rows = [0, 1, 2].map((k) => examples.slice((i + k) * 2, (i + k) * 2 + 2)).filter(({ length }) => length > 0);
        const outcome = step.run(
          rows.map((part) => collate(part, { layout: "padded", lengthLimit: 8 })),
          0.05,
        );
        outcomes.push(outcome);
        if (areAwaited) await outcome;
      }
      await Promise.all(outcomes);
      step.dispose();
      return [...((await model.parameters.get("embed")?.data()) ?? [])];
    };
    expect(await trained(false)).toEqual(await trained(true));
  });

  it("takes nothing from micro-batches whose labels are all masked", async () => {
    const masked: Example = { line: 99, ids: [1, 2, 3, 4], labels: [-100, -100, -100, -100] };
    const values = async (rows: readonly Example[], accumulate: number): Promise<{ losses: number[]; embed: number[] }> => {
      const model = bigram(dev, 0);
      model.train = () => {};
      const step = trainingStep({
        model,
        parameters: model.parameters,
        optimizer: optim.adamw([{ parameters: model.parameters }]),
        maxGradNorm: 1,
      });
      const losses: number[] = [];
      for (let i = 0; i < 2; i++) {
        const batches = Array.from({ length: accumulate }, (_, k) =>
          collate(rows.slice(k * 2, k * 2 + 2), { layout: "padded", lengthLimit: 8 }),
        );
        losses.push((await step.run(batches, 0.05)).loss);
      }
      step.dispose();
      return { losses, embed: [...((await model.parameters.get("embed")?.data()) ?? [])] };
    };
    const [first, second] = [examples.slice(0, 2), examples.slice(2, 4)];
    const none = [masked, masked];
    expect(await values([...first, ...none], 2)).toEqual(await values(first, 1));
    expect(await values([...none, ...first, ...second], 3)).toEqual(await values([...first, ...second], 2));
    await expect(values(none, 1)).rejects.toThrow(/A step needs labels other than -100/);
    await expect(run(memoryFiles(), { examples: [masked] })).rejects.toThrow(/^Step 1: all of its labels are -100/);
    const meter = evaluator(bigram(dev, 0));
    const batch = (rows: readonly Example[]) => collate(rows, { layout: "padded", lengthLimit: 8 });
    expect(await meter.run([batch(none), batch(first)])).toEqual(await meter.run([batch(first)]));
    meter.dispose();
  });

  it("reports the loss of the data, whatever is added to what is optimised", async () => {
    const options = { steps: 1, generators: [], evaluation: { examples: examples.slice(0, 2), every: 0 } } as const;
    for (const accumulate of [1, 2]) {
      const plain = await run(memoryFiles(), { ...options, accumulate });
      const penalised = await run(memoryFiles(), {
        ...options,
        accumulate,
        rules: { regularization: () => tensor(100, { device: dev }) },
      });
      expect(penalised.metrics[0]?.loss).toBeCloseTo(plain.metrics[0]?.loss ?? 0, 5);
      expect(penalised.metrics[0]?.gradNorm).toBeCloseTo(plain.metrics[0]?.gradNorm ?? 0, 5);
    }
  });

  it("evaluates to a finite loss, or rejects with the rows of the first batch whose loss is none, and where nothing counts", async () => {
    const shape = { layout: "padded", lengthLimit: 8 } as const;
    const model = bigram(dev, 0);
    model.parameters.get("embed")?.assign(tensor(new Float32Array(35).fill(3e38), { device: dev, shape: [7, 5] }));
    model.parameters.get("head")?.assign(tensor(new Float32Array(35).fill(3e38), { device: dev, shape: [5, 7] }));
    const masked: Example = { line: 99, ids: [1, 2, 3, 4], labels: [-100, -100, -100, -100] };
    const batches = [collate([masked], shape), collate(examples.slice(2, 8), shape), collate(examples.slice(0, 1), shape)];
    const meter = evaluator(model);
    const infinite = meter.run(batches);
    await expect(infinite).rejects.toThrow(TrainingError);
    await expect(infinite).rejects.toThrow(
      /^The loss of batch 2 \(lines 2, 3, 4, 5 and 2 more\) is (NaN|Infinity): .*Evaluate an earlier checkpoint/,
    );
    await expect(meter.run(batches.slice(2))).rejects.toThrow(/batch 1 \(line 0\) is/);
    await expect(meter.run(batches.slice(0, 1))).rejects.toThrow(/^None of the rows to evaluate has loss tokens\./);
    await expect(meter.run(batches.slice(0, 1))).rejects.toThrow(TrainingError);
    meter.dispose();
  });

  it("says at which step a held-out loss was not finite", async () => {
    // Adam's step is about the rate itself: finite weights, whose products are beyond f32.
    await expect(run(memoryFiles(), { schedule: (step) => (step === 2 ? 1e30 : 0.01) })).rejects.toThrow(
      /^Step 3: the held-out loss is (NaN|Infinity)\. A learning rate of 1\.00e\+30 .*lower --lr/,
    );
  });

  it.each([-1, 7, 9999])("refuses the label %d with its row and position", async (label) => {
    const model = { ...bigram(dev, 0), vocabSize: 7 };
    const rows = [examples[0] as Example, { line: 1, ids: [1, 2, 3, 4], labels: [-100, 2, label, 4] }];
    const batch = collate(rows, { layout: "padded", lengthLimit: 8 });
    const says = new RegExp(`^Label ${label} at row 1, position 2 is neither a token of the model's vocabulary of 7 \\(0 to 6\\) nor -100`);
    await expect(evaluator(model).run([batch])).rejects.toThrow(says);
    const packed = collate(rows, { layout: "packed", lengthLimit: 8 });
    await expect(evaluator(model).run([packed])).rejects.toThrow(says);
    const step = trainingStep({
      model,
      parameters: model.parameters,
      optimizer: optim.adamw([{ parameters: model.parameters }]),
      maxGradNorm: 1,
    });
    await expect(step.run([batch], 0.1)).rejects.toThrow(says);
  });

  it("refuses the state of another run", async () => {
    const files = memoryFiles();
    await run(files);
    const model = bigram(dev, 0);
    const options = {
      model,
      parameters: new Map([["other", tensor([1], { device: dev })]]),
      examples,
      lengthLimit: 8,
      steps: 9,
      batchSize: 3,
      seed: 5,
    };
    const folder = { files, path: "run", every: 3, settings: {}, save: async () => {} };
    await expect(train({ ...options, folder, resume: true, schedule: () => 0.1 })).rejects.toThrow(/state is of another run/);
  });
});
