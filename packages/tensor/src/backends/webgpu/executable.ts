import type { Executable } from "../../graph/backend.js";
import type { Plan, PlanSlot } from "../../kernels/kernel.js";
import { planStatistics } from "../../kernels/statistics.js";
import type { VariantChoice } from "../../kernels/wgsl/choice.js";
import type { WgslProgram } from "../../kernels/wgsl/print.js";
import { type ArenaLayout, layOutArena, type SharedArena } from "./arena.js";
import type { DeviceBuffer } from "./buffers.js";
import type { Pipeline, PipelineCache } from "./pipelines.js";
import type { Profiler } from "./profile.js";
import type { Programs } from "./programs.js";

/** Bind groups kept for each step: tensors that trade buffers from run to run come back to the same few tuples. */
const groupsKept = 8;

interface Step {
  readonly program: WgslProgram;
  readonly pipeline: Pipeline;
  /** The plan bindings that the step touches. */
  readonly bound: readonly number[];
  /** Bind groups by the ids of those bindings' buffers. */
  readonly groups: Map<string, GPUBindGroup>;
  generation: number;
}

/** A plan compiled for a device. */
export class WebgpuExecutable implements Executable {
  readonly steps: readonly Step[];
  readonly layout: ArenaLayout;
  #isDisposed = false;

  constructor(
    readonly plan: Plan,
    readonly device: GPUDevice,
    readonly pipelines: PipelineCache,
    readonly arena: SharedArena,
    programs: Programs,
    choice: VariantChoice,
    maxBufferBytes: number,
  ) {
    this.layout = layOutArena(plan, maxBufferBytes);
    const slots = this.#placedSlots();
    const steps: Step[] = [];
    for (const [i, kernel] of plan.kernels.entries()) {
      for (const program of programs.of(kernel, slots, plan.names[i] ?? kernel.kind, choice)) {
        const bound = new Set<number>();
        for (const { slot } of program.bindings) {
          const info = plan.slots[slot];
          if (info?.kind === "bound") bound.add(info.binding);
        }
        steps.push({ program, pipeline: pipelines.take(program), bound: [...bound], groups: new Map(), generation: -1 });
      }
    }
    this.steps = steps;
    arena.add(this.layout);
  }

  /** The plan's slots as printers see them: chunks of the arena lie so far apart that no binding seems to span two. */
  #placedSlots(): readonly PlanSlot[] {
    if (this.layout.chunkBytes.length <= 1) return this.plan.slots;
    return this.plan.slots.map((info, slot) => {
      const place = this.layout.places.get(slot);
      return info.kind === "arena" && place ? { ...info, offset: place.chunk * 2 ** 45 + place.offset } : info;
    });
  }

  /** Records all steps into one compute pass; with a profiler, each into a pass of its own. */
  encode(encoder: GPUCommandEncoder, bindings: readonly DeviceBuffer[], profiler: Profiler | null): void {
    let pass = profiler ? null : encoder.beginComputePass();
    // A kernel that was split into several steps is counted as none.
    const works = profiler && this.steps.length === this.plan.kernels.length ? planStatistics(this.plan).kernels : [];
    for (const [i, step] of this.steps.entries()) {
      const work = works[i];
      const own = pass ?? encoder.beginComputePass(profiler?.begin({ name: step.program.name, ...(work && { work }) }) ?? {});
      own.setPipeline(step.pipeline.gpu);
      own.setBindGroup(0, this.#group(step, bindings));
      own.dispatchWorkgroups(...step.program.workgroups);
      if (!pass) own.end();
    }
    pass?.end();
    pass = null;
  }

  #group(step: Step, bindings: readonly DeviceBuffer[]): GPUBindGroup {
    if (step.generation !== this.arena.generation) {
      step.groups.clear();
      step.generation = this.arena.generation;
    }
    let key = "";
    for (const binding of step.bound) key += `${bindings[binding]?.id},`;
    const known = step.groups.get(key);
    if (known) return known;
    const made = this.device.createBindGroup({
      label: step.program.name,
      layout: step.pipeline.layout,
      entries: step.program.bindings.map(({ slot, offset, bytes }, binding) => {
        const { buffer, start } = this.#place(slot, bindings);
        return { binding, resource: { buffer: buffer.gpu, offset: start + offset, size: bytes } };
      }),
    });
    const oldest = step.groups.keys().next();
    if (step.groups.size >= groupsKept && !oldest.done) step.groups.delete(oldest.value);
    step.groups.set(key, made);
    return made;
  }

  #place(slot: number, bindings: readonly DeviceBuffer[]): { buffer: DeviceBuffer; start: number } {
    const info = this.plan.slots[slot];
    if (info?.kind === "bound") {
      const buffer = bindings[info.binding];
      if (!buffer) throw new Error(`Plan binding ${info.binding} was given no buffer.`);
      return { buffer, start: 0 };
    }
    const place = this.layout.places.get(slot);
    if (!place) throw new Error(`Slot ${slot} has no place in the arena.`);
    return { buffer: this.arena.chunk(place.chunk), start: place.offset };
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    for (const step of this.steps) this.pipelines.give(step.pipeline);
    this.arena.remove(this.layout);
  }
}
