import type { DType } from "../tensor/dtype.js";
import type { Expr } from "./expr.js";
import type { Plan, SingleKernel, Slot } from "./kernel.js";
import { changingIn, note, readsOf, renamedKernel, writesOf } from "./slots.js";

/**
 * What kernels that are equal but for their slots have in common. In `kernel`, slots are operands 0, 1, 2, … in the order of their first
 * use. Equal templates are one object, so that what is known of it serves all its kernels.
 */
export interface Template {
  readonly id: number;
  readonly kernel: SingleKernel;
  /** The type of each operand in memory. */
  readonly dtypes: readonly DType[];
  /** Expressions of the kernel that change with its slots, operands first. */
  readonly changing: readonly Expr[];
  /** The operands that it reads and that it writes. */
  readonly reads: readonly number[];
  readonly writes: readonly number[];
}

/** A kernel as a template and the slot of each of its operands, all different. */
export class Bound {
  readonly reads: readonly Slot[];
  readonly writes: readonly Slot[];
  #kernel: SingleKernel | null;

  constructor(
    readonly template: Template,
    readonly slots: readonly Slot[],
    kernel: SingleKernel | null = null,
  ) {
    this.reads = slotsOf(template.reads, slots);
    this.writes = slotsOf(template.writes, slots);
    this.#kernel = kernel;
  }

  get kind(): SingleKernel["kind"] {
    return this.template.kernel.kind;
  }

  /** The kernel itself, made when it is first asked for. */
  get kernel(): SingleKernel {
    this.#kernel ??= this.#made();
    return this.#kernel;
  }

  #made(): SingleKernel {
    const slotOf = (operand: number): Slot => this.slots[operand] as Slot; // a template has a slot for each operand
    const kernel = renamedKernel(this.template.kernel, slotOf, slotOf, this.template.changing);
    note(kernel, this.reads, this.writes);
    known.set(kernel, this);
    return kernel;
  }
}

function slotsOf(operands: readonly number[], slots: readonly Slot[]): Slot[] {
  const found = new Array<Slot>(operands.length);
  for (let i = 0; i < operands.length; i++) found[i] = slots[operands[i] as number] as Slot; // a template has a slot for each operand
  return found;
}

/** Templates that are remembered; beyond it all are forgotten, which costs time and nothing else. */
const maxTemplates = 8192;

const templates = new Map<string, Template>();
let nextId = 0;

const known = new WeakMap<SingleKernel, Bound>();

/** A kernel as a template and slots. */
export function boundOf(kernel: SingleKernel, dtypeOf: (slot: Slot) => DType): Bound {
  const found = known.get(kernel);
  if (found) return found;
  const operands = new Map<Slot, number>();
  const operandOf = (slot: Slot): number => {
    const operand = operands.get(slot) ?? operands.size;
    operands.set(slot, operand);
    return operand;
  };
  const local = renamedKernel(kernel, operandOf, operandOf);
  const slots = [...operands.keys()];
  const dtypes = slots.map(dtypeOf);
  const key = `${textOf(local)} ${dtypes.join()}`;
  let template = templates.get(key);
  if (!template) {
    if (templates.size >= maxTemplates) templates.clear();
    template = { id: nextId++, kernel: local, dtypes, changing: changingIn(local), reads: readsOf(local), writes: writesOf(local) };
    templates.set(key, template);
  }
  const bound = new Bound(template, slots, kernel);
  known.set(kernel, bound);
  return bound;
}

/** A plan's kernels as templates over slots, a group as its members. */
export function boundKernels(plan: Plan): readonly (readonly Bound[])[] {
  // Kernels are not to be made for it.
  if (plan.bound) return plan.bound;
  const { kernels, slots } = plan;
  const dtypeOf = (slot: Slot): DType => {
    const found = slots[slot];
    if (!found) throw new Error(`Plan: kernel touches slot ${slot}, but there are ${slots.length}.`);
    return found.dtype;
  };
  return kernels.map((kernel) => (kernel.kind === "group" ? kernel.members : [kernel]).map((member) => boundOf(member, dtypeOf)));
}

/** The kernel of a template over slots. */
export function bind(template: Template, slots: readonly Slot[]): Bound {
  return areApart(slots) ? new Bound(template, slots) : aliased(template, slots);
}

/** Lists of so many are compared one by one. */
const few = 12;

function areApart(slots: readonly Slot[]): boolean {
  if (slots.length > few) return new Set(slots).size === slots.length;
  for (let i = 1; i < slots.length; i++) for (let j = 0; j < i; j++) if (slots[i] === slots[j]) return false;
  return true;
}

/** For each template its forms where some operands lie in one slot, by which those are. */
const aliases = new WeakMap<Template, Map<string, { readonly template: Template; readonly operands: readonly number[] }>>();

function aliased(template: Template, slots: readonly Slot[]): Bound {
  const firsts = slots.map((slot) => slots.indexOf(slot));
  const key = firsts.join();
  let forms = aliases.get(template);
  if (!forms) aliases.set(template, (forms = new Map()));
  let form = forms.get(key);
  if (!form) {
    const first = (operand: number): number => firsts[operand] as number; // as many as the template has operands
    const bound = boundOf(renamedKernel(template.kernel, first, first), (operand) => template.dtypes[operand] as DType);
    forms.set(key, (form = { template: bound.template, operands: bound.slots }));
  }
  return new Bound(form.template, slotsOf(form.operands, slots));
}

/** The same kernel over other slots, of the same types. */
export function withSlots(bound: Bound, reads: (slot: Slot) => Slot, writes: (slot: Slot) => Slot): Bound {
  const { template, slots } = bound;
  if (reads === writes) return bind(template, slots.map(reads));
  const [read, written] = [new Set(bound.reads), new Set(bound.writes)];
  if (slots.some((slot) => read.has(slot) && written.has(slot) && reads(slot) !== writes(slot))) {
    const dtypes = new Map<Slot, DType>();
    for (const [operand, slot] of slots.entries()) {
      const dtype = template.dtypes[operand] as DType; // one for each operand
      if (read.has(slot)) dtypes.set(reads(slot), dtype);
      if (written.has(slot)) dtypes.set(writes(slot), dtype);
    }
    return boundOf(renamedKernel(bound.kernel, reads, writes), (slot) => dtypes.get(slot) as DType);
  }
  return bind(
    template,
    slots.map((slot) => (written.has(slot) ? writes(slot) : reads(slot))),
  );
}

/** A text that is equal exactly for equal data; what is shared is said once. */
export function textOf(root: object): string {
  const numbers = new Map<object, number>();
  const parts: string[] = [];
  // Expressions may be deep: what a value holds is said after it.
  const waiting: object[] = [root];
  const word = (value: unknown): string => {
    if (typeof value === "string") return JSON.stringify(value);
    if (typeof value !== "object" || value === null) return Object.is(value, -0) ? "-0" : String(value);
    let number = numbers.get(value);
    if (number === undefined) {
      number = numbers.size;
      numbers.set(value, number);
      waiting.push(value);
    }
    return `#${number}`;
  };
  numbers.set(root, 0);
  for (let value = waiting.pop(); value; value = waiting.pop()) {
    const fields = Array.isArray(value)
      ? value.map(word)
      : Object.entries(value)
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([name, field]) => `${name}:${word(field)}`);
    parts.push(`${numbers.get(value)}{${fields.join()}}`);
  }
  return parts.join("");
}
