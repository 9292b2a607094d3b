// What a step keeps from the forward pass for the backward pass.
import { type Device, device, planningDevice, planStatistics, realize, type Tensor, zeros } from "@lowrank/tensor";
import { afterAll, beforeAll, expect, test } from "vitest";
import { grad } from "../src/index.js";

let cpu: Device;
beforeAll(async () => {
  cpu = await device("cpu");
});
afterAll(() => cpu.dispose());

const [rows, width, hidden] = [128, 16, 256];

/** Bytes of a plan's own values for the gradient of what goes into so many frozen layers. */
async function arenaBytes(layers: number, activation: (x: Tensor) => Tensor): Promise<number> {
  const { device: dev, plans } = planningDevice(cpu);
  const first = zeros([rows, width], { device: dev }).add(0);
  await realize(first);
  const weight = async (shape: readonly number[]): Promise<Tensor> => {
    const made = zeros(shape, { device: dev }).add(0);
    await realize(made);
    return made;
  };
  let x = first;
  for (let i = 0; i < layers; i++) {
    const [up, down] = [await weight([width, hidden]), await weight([hidden, width])];
    x = activation(x.matmul(up)).matmul(down);
  }
  await realize(...grad(x.square().sum(), [first]));
  const plan = plans.at(-1);
  if (!plan) throw new Error("Nothing was planned.");
  return planStatistics(plan).arenaBytes;
}

const activations: Readonly<Record<string, (x: Tensor) => Tensor>> = {
  gelu: (x) => x.gelu(),
  "gelu by tanh": (x) => x.gelu("tanh"),
  silu: (x) => x.silu(),
  tanh: (x) => x.tanh(),
};

test.each(Object.entries(activations))(
  "a frozen layer keeps one matrix for %s, however many layers lie behind it",
  async (_name, activation) => {
    const matrixBytes = rows * hidden * 4;
    const [few, many] = [await arenaBytes(10, activation), await arenaBytes(70, activation)];
    expect((many - few) / 60).toBeLessThanOrEqual(1.01 * matrixBytes);
  },
);
