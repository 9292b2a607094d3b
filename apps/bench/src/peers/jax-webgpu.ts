// jax-js on WebGPU, in Node through Dawn.
import { jaxTasks, jaxVersion } from "./jax.js";
import { setWebGpu } from "./navigator.js";
import { serve } from "./serve.js";

await serve(async ({ threads }) => {
  const found = await setWebGpu(threads);
  if ("skipped" in found) return found;
  const jax = await import("@jax-js/jax");
  const devices = await jax.init("webgpu");
  if (!devices.includes("webgpu")) return { skipped: `jax-js starts ${devices.join(", ")} only` };
  jax.defaultDevice("webgpu");
  return { name: "jax-webgpu", version: jaxVersion(), detail: `jit, Dawn on ${found.adapter}`, tasks: jaxTasks(jax) };
});
