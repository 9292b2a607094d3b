import { skipReason, testBackend } from "test-support";
import { useVulkan } from "../../../scripts/vulkan.mjs";
import { loadDawn } from "../src/backends/webgpu/dawn.js";
import { createWebgpuBackend, type WebgpuBackend, type WebgpuOptions } from "../src/backends/webgpu/index.js";

/** True in the test projects that have a WebGPU adapter. */
export function hasWebgpu(): boolean {
  if (testBackend() !== "cpu") return true;
  skipReason("tests of the webgpu backend run in the projects swiftshader and lavapipe (LOWRANK_TEST_BACKEND)");
  return false;
}

/** A backend of its own over the adapter that the project names. */
export async function openWebgpu(options: WebgpuOptions = {}): Promise<WebgpuBackend> {
  const backend = testBackend();
  if (backend === "cpu") throw new Error("This project has no WebGPU.");
  if (backend !== "gpu") useVulkan(backend);
  return createWebgpuBackend({ gpu: await loadDawn(), ...options });
}
