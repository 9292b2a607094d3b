import { concat, realizeNow, type Tensor, tensor } from "@lowrank/tensor";
import type { AdaloraOptions } from "./adalora.js";
import type { Attachment, TrainingRules } from "./method.js";

/** B (A ⊙ E) on one layer: triplets of a row of A, a number of E and a column of B, of which training keeps the important ones. */
export interface TripletAttachment extends Attachment {
  /** lora_A [rank, in], lora_B [out, rank], lora_E [rank, 1]. */
  readonly parameters: Readonly<Record<TripletKey, Tensor>>;
  /** Which triplets the file keeps; the latest allocation's. */
  kept: readonly boolean[];
}

type TripletKey = "lora_A" | "lora_B" | "lora_E";
const keys: readonly TripletKey[] = ["lora_A", "lora_B", "lora_E"];

/** Moving averages of one parameter's importance |p · dL/dp| and of how much it varies (Zhang et al. 2023, eqs. 9 and 10). */
interface Averages {
  readonly importance: Tensor;
  readonly uncertainty: Tensor;
}

/** The allocation's memory, part of a checkpoint. */
interface State {
  /** [1]: steps so far. */
  readonly step: Tensor;
  readonly averages: ReadonlyMap<string, Averages>;
  /** [rank, 1] a layer: 1 for triplets that are kept, else 0. */
  readonly patterns: ReadonlyMap<string, Tensor>;
}

function filled(value: number, shape: readonly number[], like: Tensor): Tensor {
  return tensor(new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(value), { device: like.device, shape });
}

function initialState(attachments: ReadonlyMap<string, TripletAttachment>): State | null {
  const averages = new Map<string, Averages>();
  const patterns = new Map<string, Tensor>();
  let first: Tensor | null = null;
  for (const [place, { parameters }] of attachments) {
    first ??= parameters.lora_E;
    patterns.set(place, filled(1, parameters.lora_E.shape, first));
    for (const key of keys) {
      const { shape } = parameters[key];
      averages.set(`${place}.${key}`, { importance: filled(0, shape, first), uncertainty: filled(0, shape, first) });
    }
  }
  return first && { step: filled(0, [1], first), averages, patterns };
}

/** Frobenius norm of P Pᵀ − I over A's rows or B's columns; `vectors` is [rank, n]. */
function distanceFromOrthogonal(vectors: Tensor): Tensor {
  const gram = vectors.matmul(vectors.t());
  const size = gram.shape[0] ?? 0;
  const identity = tensor(
    new Float32Array(size * size).map((_, i) => Number(i % (size + 1) === 0)),
    { device: vectors.device, shape: [size, size] },
  );
  return gram.sub(identity).square().sum().sqrt();
}

/** Mean over all A and B; without those of layers that have no triplet left. */
function penalty(attachments: ReadonlyMap<string, TripletAttachment>, weight: number): Tensor | null {
  const norms = [...attachments.values()]
    .filter(({ parameters }) => parameters.lora_E.size > 0)
    .flatMap(({ parameters: { lora_A: a, lora_B: b } }) => [distanceFromOrthogonal(a), distanceFromOrthogonal(b.t())]);
  const [first, ...others] = norms;
  return first ? others.reduce((sum, norm) => sum.add(norm), first).mul(weight / (2 * attachments.size)) : null;
}

/** A triplet's importance: E's own, and the means of A's row and B's column. [rank] */
function scores({ averages }: State, place: string): Tensor {
  const of = (key: TripletKey): Tensor => {
    const { importance, uncertainty } = averages.get(`${place}.${key}`) as Averages; // made for every key of every place
    return importance.mul(uncertainty);
  };
  return of("lora_E")
    .squeeze(1)
    .add(of("lora_A").mean(1).add(of("lora_B").mean(0)));
}

/** How many triplets stay after a step, by the cubic schedule of eq. 12; null where nothing is taken. */
function budgetAt(step: number, initial: number, target: number, options: AdaloraOptions): number | null {
  const { totalSteps, initialSteps, finalSteps, interval } = options;
  const lastAllocation = totalSteps - finalSteps;
  if (step === lastAllocation) return target;
  if (step <= initialSteps || step > lastAllocation || step % interval !== 0) return null;
  const left = 1 - (step - initialSteps) / (lastAllocation - initialSteps);
  return Math.trunc((initial - target) * left ** 3 + target);
}

/** Moves a parameter's averages by a step's gradient where `isAveraging`. */
function average(
  { importance, uncertainty }: Averages,
  parameter: Tensor,
  gradient: Tensor,
  isAveraging: Tensor,
  options: AdaloraOptions,
): void {
  const { beta1, beta2 } = options;
  const now = parameter.mul(gradient).abs();
  const smooth = importance.mul(beta1).add(now.mul(1 - beta1));
  const varying = uncertainty.mul(beta2).add(
    now
      .sub(smooth)
      .abs()
      .mul(1 - beta2),
  );
  importance.assign(isAveraging.where(smooth, importance));
  uncertainty.assign(isAveraging.where(varying, uncertainty));
}

/** Sets the `takenCount` triplets of least importance to zero, over all layers together, and notes which are left. */
async function takeTriplets(attachments: ReadonlyMap<string, TripletAttachment>, state: State, takenCount: number): Promise<void> {
  const places = [...attachments].filter(([, { parameters }]) => parameters.lora_E.size > 0);
  const all = await concat(places.map(([place]) => scores(state, place))).data();
  const threshold = Array.from(all).sort((a, b) => a - b)[takenCount - 1] ?? 0;
  let next = 0;
  for (const [place, attachment] of places) {
    const { lora_E: e } = attachment.parameters;
    attachment.kept = Array.from({ length: e.size }, () => (all[next++] ?? 0) > threshold);
    const pattern = tensor(Float32Array.from(attachment.kept, Number), { device: e.device, shape: e.shape });
    state.patterns.get(place)?.assign(pattern);
    e.assign(e.mul(pattern));
  }
  realizeNow([...places.map(([, { parameters }]) => parameters.lora_E), ...state.patterns.values()]);
}

/** The allocation's memory by its names in a checkpoint. */
function named({ step, patterns, averages }: State): ReadonlyMap<string, Tensor> {
  return new Map([
    ["adalora.step", step],
    ...[...patterns].map(([place, pattern]) => [`adalora.${place}.pattern`, pattern] as const),
    ...[...averages].flatMap(([name, { importance, uncertainty }]) => [
      [`adalora.${name}.importance`, importance] as const,
      [`adalora.${name}.uncertainty`, uncertainty] as const,
    ]),
  ]);
}

/**
 * AdaLoRA's training (Zhang et al. 2023, algorithm 1; peft.tuners.adalora.layer.RankAllocator): the penalty in the loss, importances in
 * each step, and from time to time the triplets of least importance set to zero, fewer staying each time until `targetRank` a layer on
 * average is left. PEFT numbers steps from 0.
 */
export function rankAllocation(attachments: ReadonlyMap<string, TripletAttachment>, options: AdaloraOptions): TrainingRules {
  const lastAllocation = options.totalSteps - options.finalSteps;
  const initialBudget = [...attachments.values()].reduce((sum, { parameters }) => sum + parameters.lora_E.size, 0);
  const targetBudget = options.targetRank * attachments.size;
  let made: State | null = null;
  // Made for training only: an adapter that just computes needs none of it.
  const state = (): State | null => {
    made ??= initialState(attachments);
    return made;
  };

  return {
    regularization: () => penalty(attachments, options.orthogonality) ?? tensor(0, { device: deviceOf(attachments) }),
    afterUpdate: (gradients) => {
      const current = state();
      if (!current) return;
      const isAveraging = current.step.less(lastAllocation);
      const isFixed = current.step.greater(lastAllocation);
      for (const [place, { parameters }] of attachments) {
        if (parameters.lora_E.size === 0) continue;
        for (const key of keys) {
          const gradient = gradients.get(`base_model.model.${place}.${key}`);
          const averages = current.averages.get(`${place}.${key}`);
          if (gradient && averages) average(averages, parameters[key], gradient, isAveraging, options);
        }
        const e = parameters.lora_E;
        const pattern = current.patterns.get(place);
        if (pattern) e.assign(isFixed.where(e.mul(pattern), e));
      }
      current.step.assign(current.step.add(1));
    },
    afterStep: async (count) => {
      const budget = budgetAt(count - 1, initialBudget, targetBudget, options);
      const current = state();
      if (current && budget !== null && budget < initialBudget) await takeTriplets(attachments, current, initialBudget - budget);
    },
    state: () => {
      const current = state();
      return current ? named(current) : new Map();
    },
    restored: async () => {
      for (const [place, pattern] of state()?.patterns ?? []) {
        const attachment = attachments.get(place);
        if (attachment) attachment.kept = Array.from(await pattern.data(), (value) => value > 0);
      }
    },
  };
}

function deviceOf(attachments: ReadonlyMap<string, TripletAttachment>): Tensor["device"] {
  for (const { parameters } of attachments.values()) return parameters.lora_E.device;
  throw new TypeError("An adapter without places has no device. Give targets that fit.");
}
