import { CheckpointError, fromBytes, largest, realizeNow, ShapeError, sameShape, showShape, type Tensor } from "@lowrank/tensor";

/** Parameters that share settings which differ from the optimizer's own. */
export interface ParameterGroup {
  readonly parameters: Parameters;
  /** Multiplies the learning rate of this group; 1 when absent. */
  readonly learningRateFactor?: number;
  readonly weightDecay?: number;
}

/** Parameters in an order, or by name. Names go into `state()`; without them it counts. */
export type Parameters = readonly Tensor[] | ReadonlyMap<string, Tensor>;

/** What `update` may be told at each step. */
export interface UpdateOptions {
  /** Instead of the optimizer's own; a scalar tensor lets a compiled step take a new one at every call. */
  readonly learningRate?: Tensor | number;
}

/** A rule that moves parameters along their gradients, with the state that it keeps. */
export interface Optimizer {
  /** All parameters, in the order in which `update` takes gradients. */
  readonly parameters: readonly Tensor[];
  /** Bytes of all state tensors. */
  readonly stateBytes: number;
  /**
   * Assigns new values to parameters and state, lazily: they are computed by the next `realize` or read on the device, or by the
   * compiled step that this is part of. Throws ShapeError when the gradients do not fit the parameters.
   */
  update(gradients: readonly Tensor[], options?: UpdateOptions): void;
  /** The state tensors by name, for checkpoints: `exp_avg.<parameter>` and so on. Live: their values change with each update. */
  state(): Map<string, Tensor>;
  /** Takes over the values of tensors that `state()` gave. Throws CheckpointError when names or shapes differ. */
  load(state: ReadonlyMap<string, Tensor>): void;
}

/** One parameter with its group's settings. */
export interface Slot {
  readonly name: string;
  readonly parameter: Tensor;
  readonly learningRateFactor: number;
  readonly weightDecay: number;
}

function isGroups(given: Parameters | readonly ParameterGroup[]): given is readonly ParameterGroup[] {
  return Array.isArray(given) && given.length > 0 && "parameters" in given[0];
}

/** Flattens parameters or groups. Parameters that are still expressions are computed, so that they can be assigned. Throws ShapeError for one that is given twice or is packed. */
export function slotsOf(given: Parameters | readonly ParameterGroup[], weightDecay: number): Slot[] {
  const groups: readonly ParameterGroup[] = isGroups(given) ? given : [{ parameters: given }];
  const slots: Slot[] = [];
  for (const group of groups) {
    const entries: [string | null, Tensor][] = Array.isArray(group.parameters)
      ? (group.parameters as readonly Tensor[]).map((t) => [null, t])
      : [...(group.parameters as ReadonlyMap<string, Tensor>)];
    for (const [name, parameter] of entries) {
      slots.push({
        name: name ?? String(slots.length),
        parameter,
        learningRateFactor: group.learningRateFactor ?? 1,
        weightDecay: group.weightDecay ?? weightDecay,
      });
    }
  }
  if (new Set(slots.map(({ parameter }) => parameter)).size !== slots.length) {
    throw new ShapeError("optim: a parameter was given twice. Put each parameter into one group only.");
  }
  for (const { name, parameter } of slots)
    if (parameter.packing)
      throw new ShapeError(
        `optim: parameter ${name} is packed as ${parameter.packing.type}: blocks take no steps. Train an adapter beside it, or load the model with dtype "f32".`,
        [parameter.shape],
      );
  realizeNow(slots.map(({ parameter }) => parameter).filter((t) => !t.home));
  return slots;
}

/** State tensors of zeros, f32, one of each parameter's shape. */
export function zeroStates(slots: readonly Slot[]): Tensor[] {
  const sizes = slots.map(({ parameter }) => parameter.size);
  const zeros = new Uint8Array(4 * largest(sizes, 0));
  return slots.map(({ parameter: { size, shape, device } }) => fromBytes(zeros.subarray(0, 4 * size), "f32", shape, device));
}

/** Throws ShapeError unless there is one gradient of the right shape for each parameter. */
export function checkGradients(what: string, slots: readonly Slot[], gradients: readonly Tensor[]): void {
  if (gradients.length !== slots.length) {
    throw new ShapeError(`${what}: ${gradients.length} gradients for ${slots.length} parameters. Pass grad(loss, optimizer.parameters).`);
  }
  for (const [i, { name, parameter }] of slots.entries()) {
    const given = gradients[i]?.shape ?? [];
    if (!sameShape(given, parameter.shape)) {
      throw new ShapeError(
        `${what}: gradient ${showShape(given)} does not fit parameter ${name} ${showShape(parameter.shape)}. Keep the order of the parameters.`,
        [given, parameter.shape],
      );
    }
  }
}

/** Bytes of f32 state tensors. */
export function bytesOf(state: ReadonlyMap<string, Tensor>): number {
  return [...state.values()].reduce((bytes, t) => bytes + 4 * t.size, 0);
}

/** Assigns saved values to state tensors of the same names. Throws CheckpointError before anything changes. */
export function loadState(own: ReadonlyMap<string, Tensor>, saved: ReadonlyMap<string, Tensor>): void {
  const missing = [...own.keys()].filter((name) => !saved.has(name));
  const surplus = [...saved.keys()].filter((name) => !own.has(name));
  if (missing.length > 0 || surplus.length > 0) {
    const listed = [
      ...missing.slice(0, 3).map((name) => `lacks ${name}`),
      ...surplus.slice(0, 3).map((name) => `has ${name} besides`),
    ].join(", ");
    throw new CheckpointError(
      `The optimizer state does not belong to these parameters: it ${listed}. Resume with the settings of the saved run.`,
      "optimizer state",
    );
  }
  for (const [name, target] of own) {
    const value = saved.get(name);
    if (value && !sameShape(value.shape, target.shape)) {
      throw new CheckpointError(
        `The optimizer state ${name} is ${showShape(value.shape)}, the parameter needs ${showShape(target.shape)}. Resume with the settings of the saved run.`,
        "optimizer state",
      );
    }
  }
  for (const [name, target] of own) {
    const value = saved.get(name);
    if (value) target.assign(value);
  }
}
