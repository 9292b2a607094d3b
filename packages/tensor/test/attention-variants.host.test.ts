import { expect, it } from "vitest";
import type { CompositeKernel } from "../src/kernels/kernel.js";
import { chooseAttentionVariant } from "../src/kernels/wgsl/attention.js";
import type { Target } from "../src/kernels/wgsl/program.js";

const target: Target = {
  maxBindingBytes: 2 ** 30,
  maxBindings: 10,
  maxInvocations: 256,
  maxWorkgroupBytes: 32768,
  maxWorkgroupsPerDimension: 65535,
  isSoftware: false,
  subgroupSize: 0,
};
const heads = [1, 2, 64, 32];

/** `attention`, or its gradients, with a body that captured tensors. */
function kernel(name: "attention" | "attentionBackward", captures: number): CompositeKernel {
  const own = name === "attention" ? 3 : 6;
  const inputs = Array.from({ length: own + captures }, (_, i) => i);
  const outputs = [100, 101, 102].slice(0, name === "attention" ? 2 : 3);
  return {
    kind: "composite",
    name,
    attributes: { isCausal: true, scale: 1, captures },
    inputs,
    inputShapes: inputs.map(() => heads),
    outputs,
    outputShapes: outputs.map(() => heads),
  };
}

it("WebGPU decomposes attention whose functions of scores read more tensors than a program binds", () => {
  expect(chooseAttentionVariant(kernel("attention", 5), target)).not.toBeNull();
  expect(chooseAttentionVariant(kernel("attention", 6), target)).toBeNull();
  // The gradients' programs have three operands more.
  expect(chooseAttentionVariant(kernel("attentionBackward", 2), target)).not.toBeNull();
  expect(chooseAttentionVariant(kernel("attentionBackward", 3), target)).toBeNull();
});
