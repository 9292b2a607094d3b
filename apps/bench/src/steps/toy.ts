import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { grad, optim } from "@lowrank/autograd";
import { compile, type Device, type Tensor } from "@lowrank/tensor";
import { inputValues } from "../formula.js";
import { inputTensor } from "../inputs.js";

/** What grew between two moments of a long run. */
export interface Growth {
  readonly buffers: number;
  readonly deviceBytes: number;
  readonly heapBytes: number;
  readonly lastLoss: number;
  readonly seconds: number;
}

/** Full garbage collection, which Node offers only when told to. */
function collector(): () => void {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc") as () => void;
}

/**
 * Trains a network of two layers on 16 rows for `steps` steps, a new batch each, and says what grew after the first `settled` of them:
 * buffers made, bytes on the device, bytes of the JavaScript heap after a collection.
 */
export async function longRun(device: Device, steps: number, settled: number): Promise<Growth> {
  const collect = collector();
  const parameter = (shape: readonly number[], number: number): Tensor =>
    inputTensor(
      device,
      shape,
      inputValues(
        shape.reduce((product, size) => product * size, 1),
        number,
        0,
      ),
    );
  const weights = [parameter([8, 16], 0), parameter([16, 1], 1)] as const;
  const optimizer = optim.adamw([...weights], { learningRate: 1e-3, weightDecay: 0 });
  const step = compile((x: Tensor, y: Tensor) => {
    const error = x.matmul(weights[0]).tanh().matmul(weights[1]).sub(y);
    const loss = error.square().mean();
    optimizer.update(grad(loss, [...weights]));
    return loss;
  });
  /** What is held once the buffers of collected tensors, which come back a turn after a collection, are back. */
  const state = async (): Promise<{ buffers: number; deviceBytes: number; heapBytes: number }> => {
    let held: number;
    do {
      held = device.counters.bytesInUse;
      collect();
      await new Promise((resolve) => setTimeout(resolve, 10));
    } while (device.counters.bytesInUse !== held);
    return { buffers: device.counters.buffersCreated, deviceBytes: held, heapBytes: process.memoryUsage().heapUsed };
  };
  const start = performance.now();
  let before = await state();
  let lastLoss = 0;
  for (let i = 0; i < steps; i++) {
    if (i === settled) before = await state();
    const x = inputTensor(device, [16, 8], inputValues(128, i % 100, 1));
    const y = inputTensor(device, [16, 1], inputValues(16, i % 100, 2));
    const loss = step(x, y);
    if (i % 10 === 0 || i === steps - 1) lastLoss = await loss.item();
    for (const t of [x, y, loss]) t.dispose();
  }
  const after = await state();
  step.dispose();
  return {
    buffers: after.buffers - before.buffers,
    deviceBytes: after.deviceBytes - before.deviceBytes,
    heapBytes: after.heapBytes - before.heapBytes,
    lastLoss,
    seconds: (performance.now() - start) / 1000,
  };
}
