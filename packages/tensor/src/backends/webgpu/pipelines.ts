import type { BackendCounters } from "../../graph/backend.js";
import type { WgslProgram } from "../../kernels/wgsl/program.js";

/** A compiled program; several plans may hold it. */
export interface Pipeline {
  readonly code: string;
  readonly gpu: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  holders: number;
}

/** Pipelines without a holder that stay for plans to come. */
const spareCount = 2048;

/** Compiled programs by their text, so that the same kernel of all layers and plans is one pipeline. */
export class PipelineCache {
  readonly #pipelines = new Map<string, Pipeline>();
  readonly #layouts = new Map<string, { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();

  constructor(
    readonly device: GPUDevice,
    readonly counters: BackendCounters,
  ) {}

  take(program: WgslProgram): Pipeline {
    const known = this.#pipelines.get(program.code);
    if (known) {
      known.holders++;
      return known;
    }
    const layout = this.#layout(program.bindings.map((binding) => binding.mode));
    const { name: label, code } = program;
    const module = this.device.createShaderModule({ label, code });
    const gpu = this.device.createComputePipeline({ label, layout: layout.pipeline, compute: { module, entryPoint: "main" } });
    this.counters.pipelinesCreated++;
    const made: Pipeline = { code, gpu, layout: layout.group, holders: 1 };
    this.#pipelines.set(code, made);
    return made;
  }

  give(pipeline: Pipeline): void {
    pipeline.holders--;
    if (pipeline.holders === 0 && this.#pipelines.size > spareCount) this.#pipelines.delete(pipeline.code);
  }

  #layout(modes: readonly ("read" | "read_write")[]): { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout } {
    const key = modes.join();
    const known = this.#layouts.get(key);
    if (known) return known;
    const group = this.device.createBindGroupLayout({
      entries: modes.map((mode, binding) => ({
        binding,
        visibility: 0x4, // GPUShaderStage.COMPUTE
        buffer: { type: mode === "read" ? ("read-only-storage" as const) : ("storage" as const) },
      })),
    });
    const made = { group, pipeline: this.device.createPipelineLayout({ bindGroupLayouts: [group] }) };
    this.#layouts.set(key, made);
    return made;
  }
}
