import type { Device, Plan } from "@lowrank/tensor";

/** What a device is asked to compute: values and the storages that they go to. */
export type Targets = Parameters<Device["executor"]["prepare"]>[1];

/** What passed between the public parts of a device while it was observed. */
export interface Observation {
  /** Plans that the backend made ready, in order. */
  readonly plans: Plan[];
  /** Plans that ran, in order, each as often as it did. */
  readonly runs: Plan[];
  /** Graphs that were given to the scheduler, in order; of those that were known already too. */
  readonly graphs: Targets[];
  end(): void;
}

/** Notes every graph, every new plan and every run of a device until `end()`. */
export function observe(device: Device): Observation {
  const { backend, executor } = device;
  const [preparePlan, run, prepareGraph] = [backend.prepare, backend.run, executor.prepare];
  const plans: Plan[] = [];
  const runs: Plan[] = [];
  const graphs: Targets[] = [];
  backend.prepare = (plan) => {
    plans.push(plan);
    return preparePlan.call(backend, plan);
  };
  backend.run = (executable, bindings) => {
    runs.push(executable.plan);
    run.call(backend, executable, bindings);
  };
  executor.prepare = (on, targets) => {
    graphs.push(targets);
    return prepareGraph.call(executor, on, targets);
  };
  return {
    plans,
    runs,
    graphs,
    end() {
      backend.prepare = preparePlan;
      backend.run = run;
      executor.prepare = prepareGraph;
    },
  };
}

/** Runs `work` with kernels left out: plans are not run and reads give zeros at once. What remains is JavaScript. */
export async function withoutKernels<T>(device: Device, work: () => Promise<T>): Promise<T> {
  const { backend } = device;
  const { run, read } = backend;
  backend.run = () => {};
  backend.read = async (_buffer, byteLength) => new Uint8Array(byteLength);
  try {
    return await work();
  } finally {
    backend.run = run;
    backend.read = read;
  }
}
