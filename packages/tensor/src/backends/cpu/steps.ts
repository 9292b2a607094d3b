import {
  type CopyKernel,
  fillFrom,
  type LoopKernel,
  type Plan,
  type PlanSlot,
  type ScatterAddKernel,
  type Slot,
} from "../../kernels/kernel.js";
import { isComputed } from "../../kernels/products.js";
import { type Bound, boundKernels, type Template } from "../../kernels/template.js";
import { copyWords, printCopy, printScatterAdd, scatterWords } from "../../kernels/wasm/scatter.js";
import type { DType } from "../../tensor/dtype.js";
import { largest } from "../../tensor/extremes.js";
import { attentionBackwardSteps, attentionSteps } from "./attention.js";
import { sideBySide } from "./beside.js";
import { cachedAttentionName, cachedAttentionSteps } from "./cached-attention.js";
import { crossEntropySteps } from "./cross-entropy.js";
import { WordCount } from "./executable.js";
import type { KernelLibrary } from "./library.js";
import { loopSteps } from "./loop.js";
import { matmulSteps } from "./matmul.js";
import { movedSteps } from "./move.js";
import { packedBy } from "./panel-layout.js";

/** A word of a step's arguments: a number, or the address of a slot, of constants, of more such words, or in the plan's scratch memory. */
export type Word =
  | number
  | { readonly kind: "slot"; readonly slot: Slot; readonly byteOffset?: number }
  | { readonly kind: "scratch"; readonly offset: number }
  | { readonly kind: "constants"; readonly values: readonly number[] }
  | { readonly kind: "words"; readonly words: readonly Word[] };

/** A number by its address. */
export function number(value: number): Word {
  return table([value], 1);
}

/** A table of offsets in bytes. */
export function table(offsets: readonly number[], bytes: number, shift = 0): Word {
  return { kind: "constants", values: offsets.map((x) => (x + shift) * bytes) };
}

/** One call of a kernel function for each of `tiles` tiles. */
export interface Step {
  readonly entry: number;
  readonly tiles: number;
  readonly words: readonly Word[];
  /** Estimated time in nanoseconds, on one thread. */
  readonly cost: number;
  /** Rows that each tile of a loop covers, where tiles follow the rows. */
  readonly tileRows?: number;
}

/** The steps of one kernel, and how much scratch memory they share. */
export interface StepList {
  readonly steps: readonly Step[];
  readonly scratchBytes: number;
}

/** Turns a plan's kernels into steps, one list a kernel. Products find the matrices of some slots in panels. */
export function planSteps(plan: Plan, library: KernelLibrary, inPanels: ReadonlySet<Slot> = new Set()): StepList[] {
  return stepLists(plan, library, inPanels, movedSteps);
}

/** Bytes of scratch memory, steps and arguments of a plan. Words are as many whatever slots they name, so that templates' own steps are counted. */
export function stepBytes(plan: Plan, library: KernelLibrary): number {
  const lists = stepLists(plan, library, new Set(), null);
  const words = new WordCount();
  for (const { steps } of lists) for (const step of steps) words.add(step);
  return scratchBytesOf(lists) + words.total * 4;
}

/** Kernels run one after another, so that what the largest needs serves all. */
export function scratchBytesOf(lists: readonly StepList[]): number {
  return largest(
    lists.map(({ scratchBytes }) => scratchBytes),
    0,
  );
}

/** Puts the steps of templates over a plan's slots and places in scratch memory; null to leave them as they are. */
type Move = typeof movedSteps | null;

function stepLists(plan: Plan, library: KernelLibrary, inPanels: ReadonlySet<Slot>, move: Move): StepList[] {
  const { slots } = plan;
  const { layouts } = packedBy(plan);
  const steps = (bound: Bound): StepList => {
    const { kernel } = bound.template;
    const right = kernel.kind === "matmul" && !isComputed(kernel.b) ? (bound.slots[kernel.b.slot] as Slot) : null; // an operand of the template
    const isUnkept = right !== null && slots[right]?.kind === "bound" && !layouts.has(right);
    return singleSteps(bound, slots, library, { inPanels, isUnkept, move });
  };
  return boundKernels(plan).map((members) => (members.length === 1 ? steps(members[0] as Bound) : joined(members.map(steps), move)));
}

/** The steps of a kernel: those of its template, which are made once, over its slots. */
function singleSteps(
  bound: Bound,
  slots: readonly PlanSlot[],
  library: KernelLibrary,
  { inPanels, isUnkept, move }: { readonly inPanels: ReadonlySet<Slot>; readonly isUnkept: boolean; readonly move: Move },
): StepList {
  const { template } = bound;
  const panels = new Set(inPanels.size === 0 ? [] : bound.slots.flatMap((slot, operand) => (inPanels.has(slot) ? [operand] : [])));
  const list = library.steps(template, `${[...panels].join()}${isUnkept ? ";" : ""}`, () =>
    templateSteps(template, library, panels, isUnkept),
  );
  const over = (word: Exclude<Word, number>): Word => (word.kind === "slot" ? { ...word, slot: bound.slots[word.slot] as Slot } : word); // an operand of the template
  const steps = move ? move(list.steps, over) : list.steps;
  const fill = template.kernel.kind === "loop" && template.kernel.over ? fillFrom(bound.kernel as LoopKernel, slots) : null;
  if (steps === list.steps && !fill) return list;
  return { ...list, steps: fill ? [...copySteps(fill, library).steps, ...steps] : steps };
}

function templateSteps({ kernel, dtypes }: Template, library: KernelLibrary, inPanels: ReadonlySet<Slot>, isUnkept: boolean): StepList {
  const dtypeOf = (operand: Slot): DType => dtypes[operand] as DType; // the template has a type for each
  switch (kernel.kind) {
    case "loop":
      return loopSteps(kernel, dtypes.length, dtypeOf, library);
    case "matmul":
      return matmulSteps(kernel, dtypeOf, library, { inPanels, isUnkept });
    case "scatterAdd":
      return scatterSteps(kernel, dtypeOf, library);
    case "copy":
      return copySteps(kernel, library);
    case "composite":
      if (kernel.name === "attention") return attentionSteps(kernel, dtypeOf, library);
      if (kernel.name === "attentionBackward") return attentionBackwardSteps(kernel, dtypeOf, library);
      if (kernel.name === cachedAttentionName) return cachedAttentionSteps(kernel, dtypeOf, library);
      return crossEntropySteps(kernel, dtypes.length, dtypeOf, library);
  }
}

/** Independent lists of steps side by side: the first step of each as one, then the second of each, and so on. */
function joined(lists: readonly StepList[], move: Move): StepList {
  let scratchBytes = 0;
  const apart = lists.map((list) => {
    const start = scratchBytes;
    scratchBytes += Math.ceil(list.scratchBytes / 64) * 64;
    if (!move || list.scratchBytes === 0) return list.steps;
    return move(list.steps, (word) => (word.kind === "scratch" ? { kind: "scratch", offset: start + word.offset } : word));
  });
  const depth = largest(
    apart.map((steps) => steps.length),
    0,
  );
  return { steps: Array.from({ length: depth }, (_, stage) => sideBySide(apart.flatMap((steps) => steps[stage] ?? []))), scratchBytes };
}

function scatterSteps(kernel: ScatterAddKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList {
  const { rows, width, count } = kernel;
  if (rows * width === 0) return { steps: [], scratchBytes: 0 };
  const types = [dtypeOf(kernel.indices), dtypeOf(kernel.updates), dtypeOf(kernel.out)] as const;
  const entry = library.entry(`scatterAdd;${types.join()}`, (module, _, name) => printScatterAdd(module, ...types, name));
  // Each tile reads all indices, so it should own some work beside that.
  const tileRows = Math.max(1, Math.ceil(rows / 64), Math.ceil(16384 / width));
  const values = {
    indices: { kind: "slot", slot: kernel.indices },
    updates: { kind: "slot", slot: kernel.updates },
    out: { kind: "slot", slot: kernel.out },
    rows,
    width,
    count,
    tileRows,
  } as const satisfies Record<(typeof scatterWords)[number], Word>;
  const tiles = Math.ceil(rows / tileRows);
  return {
    steps: [{ entry, tiles, words: scatterWords.map((word) => values[word]), cost: rows * width * 0.1 + count * (width * 0.2 + tiles) }],
    scratchBytes: 0,
  };
}

function copySteps(kernel: CopyKernel, library: KernelLibrary): StepList {
  if (kernel.bytes === 0) return { steps: [], scratchBytes: 0 };
  const entry = library.entry("copy", (module, _, name) => printCopy(module, name));
  const tileBytes = 262144;
  const values = {
    from: { kind: "slot", slot: kernel.from },
    to: { kind: "slot", slot: kernel.to },
    bytes: kernel.bytes,
    tileBytes,
  } as const satisfies Record<(typeof copyWords)[number], Word>;
  return {
    steps: [{ entry, tiles: Math.ceil(kernel.bytes / tileBytes), words: copyWords.map((word) => values[word]), cost: kernel.bytes * 0.1 }],
    scratchBytes: 0,
  };
}
