import { type DeviceOptions, device } from "@lowrank/tensor";
import { createCpuBackend } from "../packages/tensor/src/backends/cpu/backend.js";
import { nodeEnvironment } from "../packages/tensor/src/backends/cpu/node.js";
import { Device } from "../packages/tensor/src/graph/device.js";
import { planExecutor } from "../packages/tensor/src/schedule/plan-executor.js";
import { useVulkan } from "../scripts/vulkan.mjs";

/** `gpu` is whatever Vulkan, Metal or Direct3D adapter Dawn finds by itself. */
export type TestBackend = "cpu" | "swiftshader" | "lavapipe" | "gpu";

/** The backend this run tests; `vitest.config.ts` sets one for each of its projects. */
export function testBackend(): TestBackend {
  const name = process.env["LOWRANK_TEST_BACKEND"] ?? "cpu";
  if (name === "cpu" || name === "swiftshader" || name === "lavapipe" || name === "gpu") return name;
  throw new Error(`LOWRANK_TEST_BACKEND=${name}: unknown backend. Choose cpu, swiftshader, lavapipe or gpu.`);
}

let opened: Promise<Device> | undefined;

/** The device under test, opened once a test file. */
export function testDevice(): Promise<Device> {
  opened ??= newDevice();
  return opened;
}

/** A cpu device that packs right operands for good whenever it may. */
function panelsDevice({ budgetBytes: asked, ...options }: DeviceOptions): Device {
  const budgetBytes = typeof asked === "function" ? asked("cpu") : asked;
  const budget = budgetBytes === undefined ? {} : { budgetBytes };
  return new Device("cpu", createCpuBackend({ ...options, ...budget, environment: nodeEnvironment(), panelsAtOnce: true }), planExecutor());
}

/** A device under test that no other test has put anything on, for those that count what it holds. The caller disposes it. */
export async function newDevice(options: DeviceOptions = {}): Promise<Device> {
  const backend = testBackend();
  if (backend === "cpu") return process.env["LOWRANK_TEST_PANELS"] === "1" ? panelsDevice(options) : device("cpu", options);
  // Models have hundreds of shaders, which compile in half the time for narrow vectors. Tests of single kernels keep the driver's own width,
  // and with it wider subgroups.
  if (backend === "lavapipe") {
    process.env["LP_NATIVE_VECTOR_WIDTH"] ??= "128";
    // And in two thirds of the time without LLVM's passes.
    process.env["GALLIVM_PERF"] ??= "nopt";
  }
  // The Vulkan loader reads its environment when Dawn makes its instance, so this comes before the first device.
  if (backend !== "gpu") useVulkan(backend);
  // What somebody measured on this machine changes no test.
  return device("webgpu", { ...options, tuning: null });
}
