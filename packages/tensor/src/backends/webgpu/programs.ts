import type { Kernel, PlanSlot, Slot } from "../../kernels/kernel.js";
import { boundOf, type Template } from "../../kernels/template.js";
import type { VariantChoice } from "../../kernels/wgsl/choice.js";
import { printKernel, type Target, type WgslProgram } from "../../kernels/wgsl/print.js";

/**
 * The programs of all kernels printed so far. Kernels that are equal but for their slots have one text, and differ in what they bind: as
 * many layers as a model may have, each form is printed once.
 */
export class Programs {
  #known = new WeakMap<VariantChoice, WeakMap<Template, Map<string, readonly WgslProgram[]>>>();

  constructor(readonly target: Target) {}

  /** Forgets all texts: choices are others from now on. */
  clear(): void {
    this.#known = new WeakMap();
  }

  /** The programs that run a kernel of a plan, in order. */
  of(kernel: Kernel, slots: readonly PlanSlot[], name: string, choice: VariantChoice): readonly WgslProgram[] {
    if (kernel.kind === "group") return kernel.members.flatMap((member) => this.of(member, slots, name, choice));
    const bound = boundOf(kernel, (slot) => infoOf(slots, slot).dtype);
    const infos = bound.slots.map((slot) => infoOf(slots, slot));
    const known = this.#of(bound.template, choice);
    const key = `${name} ${infos.map(({ kind, elementCount, bytes }) => `${kind} ${elementCount} ${bytes}`).join()}`;
    let programs = known.get(key);
    if (!programs) {
      programs = printKernel(bound.template.kernel, infos, name, this.target, choice);
      if (!programs.some(({ usesPlaces }) => usesPlaces)) known.set(key, programs);
    }
    return programs.map((program) => ({
      ...program,
      bindings: program.bindings.map((binding) => ({ ...binding, slot: bound.slots[binding.slot] as Slot })), // an operand of the template
    }));
  }

  #of(template: Template, choice: VariantChoice): Map<string, readonly WgslProgram[]> {
    let templates = this.#known.get(choice);
    if (!templates) this.#known.set(choice, (templates = new WeakMap()));
    let known = templates.get(template);
    if (!known) templates.set(template, (known = new Map()));
    return known;
  }
}

function infoOf(slots: readonly PlanSlot[], slot: Slot): PlanSlot {
  const info = slots[slot];
  if (!info) throw new Error(`Plan: kernel touches slot ${slot}, but there are ${slots.length}.`);
  return info;
}
