// TensorFlow.js on WebGPU, in Node through Dawn.
import { setWebGpu } from "./navigator.js";
import { serve } from "./serve.js";

await serve(async ({ threads }) => {
  const found = await setWebGpu(threads);
  if ("skipped" in found) return found;
  const tf = await import("@tensorflow/tfjs-core");
  const { version_webgpu: version } = (await import("@tensorflow/tfjs-backend-webgpu")) as { readonly version_webgpu?: string };
  if (!(await tf.setBackend("webgpu"))) return { skipped: "TensorFlow.js does not start its webgpu backend" };
  await tf.ready();
  const { tfjsTasks } = await import("./tfjs.js");
  return {
    name: "tfjs-webgpu",
    version: version ?? tf.version_core,
    detail: `Dawn on ${found.adapter}`,
    tasks: tfjsTasks({ hasPlainProductsOnly: false }),
  };
});
