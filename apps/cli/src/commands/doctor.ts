import { availableParallelism, totalmem } from "node:os";
import { type Device, type DeviceName, device, Generator } from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import type { Flags } from "../flags.js";
import { tellMainThread } from "../main-thread.js";
import { jsonFlag } from "../session.js";
import { bytes } from "../terminal/format.js";

const flags = {
  seconds: { type: "number", above: 0, help: "length of the matmul on each backend", default: 3 },
  json: jsonFlag,
} as const satisfies Flags;

/** What was found out about one backend. */
interface Finding {
  readonly backend: DeviceName;
  readonly isAvailable: boolean;
  readonly description: string;
  /** Billion floating-point operations a second of a 1024 x 1024 x 1024 f32 matmul. */
  readonly gflops: number | null;
  readonly maxBufferBytes: number | null;
  readonly budgetBytes: number | null;
  /** What is missing and how to get it. */
  readonly problem: string | null;
}

async function examine(name: "cpu" | "webgpu", seconds: number): Promise<Finding> {
  let dev: Device;
  tellMainThread({ kind: "native", isNative: name !== "cpu" });
  try {
    dev = await device(name);
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    return {
      backend: name,
      isAvailable: false,
      description: "not available",
      gflops: null,
      maxBufferBytes: null,
      budgetBytes: null,
      problem,
    };
  }
  const { description, limits } = dev;
  const found = { backend: name, isAvailable: true, description, maxBufferBytes: limits.maxBufferBytes, budgetBytes: limits.budgetBytes };
  try {
    return { ...found, gflops: await matmulSpeed(dev, seconds), problem: null };
  } catch (error) {
    return { ...found, gflops: null, problem: `the matmul failed: ${error instanceof Error ? error.message : String(error)}` };
  } finally {
    dev.dispose();
  }
}

async function matmulSpeed(dev: Device, seconds: number): Promise<number> {
  const size = 1024;
  const generator = new Generator(dev, 1);
  const [a, b] = [await generator.uniform([size, size]).realize(), await generator.uniform([size, size]).realize()];
  const once = async (count: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < count; i++) (await a.matmul(b).realize()).dispose();
    await dev.finish();
    return (performance.now() - start) / 1000;
  };
  await once(1); // compiles
  const single = await once(1);
  const perRound = Math.max(1, Math.min(50, Math.floor(seconds / 5 / Math.max(single, 1e-4))));
  let best = Number.POSITIVE_INFINITY;
  const end = performance.now() + seconds * 1000;
  do best = Math.min(best, (await once(perRound)) / perRound);
  while (performance.now() < end);
  return (2 * size ** 3) / best / 1e9;
}

async function runDoctor({ values, output }: CommandContext<typeof flags>): Promise<number> {
  const backends: Finding[] = [];
  const cores = availableParallelism();
  output.say(`node ${process.version}, ${process.platform} ${process.arch}, ${cores} cores, ${bytes(totalmem())} of memory`);
  for (const name of ["cpu", "webgpu"] as const) {
    // Dawn prints by itself, where the cursor stands.
    if (name === "cpu") output.draw(`trying ${name} …`);
    else if (output.isTerminal) output.say(`trying ${name} …`);
    const found = await examine(name, values.seconds);
    backends.push(found);
    output.say(`${name.padEnd(7)} ${found.description}`);
    if (found.gflops !== null) output.say(`        1024³ f32 matmul: ${found.gflops.toFixed(1)} GFLOP/s`);
    if (found.maxBufferBytes !== null)
      output.say(`        largest buffer ${bytes(found.maxBufferBytes)}, memory budget ${bytes(found.budgetBytes ?? 0)}`);
    if (found.problem !== null) output.say(`        ${found.problem}`);
  }
  const usable = backends.some(({ isAvailable, problem }) => isAvailable && problem === null);
  if (!usable) output.say("No backend works here, so nothing can be trained.");
  output.result({ node: process.version, platform: `${process.platform}-${process.arch}`, cores, memoryBytes: totalmem(), backends });
  return usable ? 0 : 2;
}

export const doctorCommand = defineCommand({
  name: "doctor",
  makes: "text",
  summary: "What this machine offers: backends, adapters, limits, a matmul on each, what is missing and how to get it.",
  flags,
  examples: ["lowrank doctor"],
  run: runDoctor,
});
