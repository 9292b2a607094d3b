import type { Plan, Slot } from "../../kernels/kernel.js";
import { DeviceError } from "../../tensor/errors.js";
import type { CpuBuffer } from "./buffer.js";
import type { CpuExecutable } from "./executable.js";
import { keyOf, layOutBytes, layOutPlan, type PanelLayout, packedBy } from "./panel-layout.js";

/** Measured time of packing an element, in nanoseconds. */
const packNanoseconds = 0.5;
/** Plans that spend less of their time on packing than this have nothing to gain. */
const leastShare = 1 / 256;
/** What laying out may take where plans share less: so many bytes, and this part of the budget at most. */
const mostBytes = 16 * 2 ** 20;
const budgetShare = 1 / 64;

/** What the panels of buffers need of their backend. */
export interface PanelHost {
  readonly budgetBytes: number;
  /** At the first run that could read a buffer so it is laid out, whatever that saves. No plan may then bind a buffer twice. */
  readonly atOnce: boolean;
  /** Makes a plan ready to run, whose given slots lie in panels. Throws DeviceError when the budget does not hold its arguments. */
  place(plan: Plan, inPanels: ReadonlySet<Slot>): CpuExecutable;
  /** Runs, or enqueues, all steps on some buffers. */
  launch(executable: CpuExecutable, buffers: readonly CpuBuffer[]): void;
}

/** Both ways of a layout, made ready, and how many buffers lie in it. */
interface Ways {
  readonly toPanels: CpuExecutable;
  readonly toTensor: CpuExecutable;
  count: number;
}

/**
 * Right operands that stay packed between runs, as XNNPACK keeps its weights. A frozen weight is laid out as panels inside its own buffer
 * once some runs in a row have read it so and nothing has changed it, and back as the tensor says before anything else touches it. Both
 * use the memory that plans share. A buffer that goes back and forth must be read twice as often in a row each time before it is laid out
 * again, so that all its moves together cost no more than what they might save.
 */
export class KeptPanels {
  readonly #interned = new Map<string, PanelLayout>();
  readonly #ways = new Map<PanelLayout, Ways>();

  constructor(readonly host: PanelHost) {}

  /** For each binding, how a run could find it laid out; empty where that would not pay. */
  layoutsOf(plan: Plan, nanoseconds: number, sharedBytes: number): readonly (PanelLayout | null)[] {
    const { layouts, elementCount } = packedBy(plan);
    if (!this.host.atOnce && elementCount * packNanoseconds < nanoseconds * leastShare) return [];
    const roomBytes = Math.max(sharedBytes, Math.min(mostBytes, this.host.budgetBytes * budgetShare));
    const found: (PanelLayout | null)[] = Array.from({ length: plan.bindingCount }, () => null);
    for (const [number, slot] of plan.slots.entries()) {
      const layout = layouts.get(number);
      if (layout && slot.kind === "bound" && layOutBytes(layout) <= roomBytes) found[slot.binding] = this.#intern(layout);
    }
    return found.some((layout) => layout !== null) ? found : [];
  }

  #intern(layout: PanelLayout): PanelLayout {
    const key = keyOf(layout);
    const known = this.#interned.get(key) ?? layout;
    this.#interned.set(key, known);
    return known;
  }

  /** Brings a run's buffers into a state that one of a plan's executables reads, and returns that one. */
  arrange(executable: CpuExecutable, buffers: readonly CpuBuffer[]): CpuExecutable {
    const { layouts } = executable;
    for (let i = 0; i < buffers.length; i++) {
      const buffer = buffers[i];
      if (!buffer) continue;
      const layout = layouts[i] ?? null;
      if (buffer.panels && buffer.panels !== layout) this.restore(buffer);
      buffer.runs = buffer.wanted === layout ? buffer.runs + 1 : 1;
      buffer.wanted = layout;
    }
    return layouts.length > 0 ? this.#arrangeNamed(executable, buffers) : executable;
  }

  #arrangeNamed(executable: CpuExecutable, buffers: readonly CpuBuffer[]): CpuExecutable {
    const { layouts } = executable;
    // A buffer that is bound twice, once to be read otherwise, never has two such runs in a row.
    const isSettled = buffers.every((buffer, i) => {
      const layout = layouts[i];
      return !layout || (buffer.wanted === layout && (buffer.panels !== null || this.host.atOnce || buffer.runs >= buffer.patience));
    });
    const other = isSettled ? this.#readingPanels(executable) : null;
    for (let i = 0; i < buffers.length; i++) {
      const [buffer, layout] = [buffers[i], layouts[i]];
      if (!buffer || !layout) continue;
      if (!other) this.restore(buffer);
      else if (!buffer.panels) this.#enter(buffer, layout);
    }
    return other ?? executable;
  }

  /** The executable of the same plan that reads panels; null where the budget does not hold its arguments. */
  #readingPanels(executable: CpuExecutable): CpuExecutable | null {
    const { plan, layouts } = executable;
    try {
      for (const layout of layouts) if (layout) this.#waysOf(layout);
      if (executable.readingPanels) return executable.readingPanels;
      const slots = plan.slots.flatMap((slot, number) => (slot.kind === "bound" && layouts[slot.binding] ? [number] : []));
      return (executable.readingPanels = this.host.place(plan, new Set(slots)));
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      executable.layouts = [];
      this.#disposeUnused();
      return null;
    }
  }

  #waysOf(layout: PanelLayout): Ways {
    const known = this.#ways.get(layout);
    if (known) return known;
    const toTensor = this.host.place(layOutPlan(layout, "tensor"), new Set());
    try {
      const ways = { toPanels: this.host.place(layOutPlan(layout, "panels"), new Set()), toTensor, count: 0 };
      this.#ways.set(layout, ways);
      return ways;
    } catch (error) {
      toTensor.dispose();
      throw error;
    }
  }

  #enter(buffer: CpuBuffer, layout: PanelLayout): void {
    const ways = this.#waysOf(layout);
    this.host.launch(ways.toPanels, [buffer]);
    ways.count++;
    buffer.panels = layout;
  }

  /** Lays a buffer out as its tensor says again. */
  restore(buffer: CpuBuffer): void {
    const ways = buffer.panels && this.#ways.get(buffer.panels);
    if (!ways) return;
    this.host.launch(ways.toTensor, [buffer]);
    buffer.patience *= 2;
    this.forget(buffer);
  }

  /** The contents of a buffer no longer matter. */
  forget(buffer: CpuBuffer): void {
    const layout = buffer.panels;
    buffer.panels = null;
    buffer.runs = 0;
    const ways = layout && this.#ways.get(layout);
    if (!ways) return;
    ways.count--;
    this.#disposeUnused();
  }

  #disposeUnused(): void {
    for (const [layout, { toPanels, toTensor, count }] of this.#ways) {
      if (count > 0) continue;
      this.#ways.delete(layout);
      toPanels.dispose();
      toTensor.dispose();
    }
  }
}
