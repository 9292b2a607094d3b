import { hasProgram, programNames, tunedChoice } from "../../kernels/wgsl/choice.js";
import type { Target } from "../../kernels/wgsl/print.js";
import type { PlannedFor } from "../../schedule/planning.js";

/** What desktop GPUs offer through Dawn: limits of its usual tier, 32 lanes a subgroup. */
const usual: Target = {
  maxBindingBytes: 2 ** 31 - 4,
  maxBindings: 10,
  maxInvocations: 256,
  maxWorkgroupBytes: 32768,
  maxWorkgroupsPerDimension: 65535,
  isSoftware: false,
  subgroupSize: 32,
};

/** A GPU that is not here, for `planningDevice`: WebGPU's kernels as for a usual desktop card, untuned, with memory of so many bytes. */
export function absentGpu(name: string, memoryBytes: number): PlannedFor {
  const choice = tunedChoice(new Map());
  return {
    name: "webgpu",
    description: name,
    backend: {
      name: "webgpu",
      limits: { maxBufferBytes: memoryBytes, budgetBytes: memoryBytes, maxBindings: usual.maxBindings },
      supports: (kernel) => hasProgram(kernel, usual, choice),
      stridedComposites: programNames,
    },
  };
}
