import type { DType } from "../tensor/dtype.js";
import type { Expr } from "./expr.js";
import type { Kernel, SingleKernel, Slot } from "./kernel.js";
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
}

/** A kernel as a template and the slot of each of its operands, all different. */
export interface Bound {
  readonly template: Template;
  readonly slots: readonly Slot[];
}

/** Templates that are remembered; beyond it all are forgotten, which costs time and nothing else. */
const maxTemplates = 8192;

const templates = new Map<string, Template>();
let nextId = 0;

const known = new WeakMap<SingleKernel, Bound>();

/** The template of a kernel, where it is known. */
export function templateOf(kernel: SingleKernel): Template | null {
  return known.get(kernel)?.template ?? null;
}

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
    template = { id: nextId++, kernel: local, dtypes, changing: changingIn(local) };
    templates.set(key, template);
  }
  const bound = { template, slots };
  known.set(kernel, bound);
  return bound;
}

/** The kernel of a template over slots. */
export function bind(template: Template, slots: readonly Slot[]): SingleKernel {
  if (new Set(slots).size < slots.length) return aliased(template, slots);
  const slotOf = (operand: number): Slot => slots[operand] as Slot; // a template has a slot for each operand
  const kernel = renamedKernel(template.kernel, slotOf, slotOf, template.changing);
  note(kernel, readsOf(template.kernel).map(slotOf), writesOf(template.kernel).map(slotOf));
  known.set(kernel, { template, slots });
  return kernel;
}

/** For each template its forms where some operands lie in one slot, by which those are. */
const aliases = new WeakMap<Template, Map<string, { readonly template: Template; readonly operands: readonly number[] }>>();

function aliased(template: Template, slots: readonly Slot[]): SingleKernel {
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
  return bind(
    form.template,
    form.operands.map((operand) => slots[operand] as Slot),
  );
}

/** The same kernel over other slots. */
export function withSlots(kernel: Kernel, reads: (slot: Slot) => Slot, writes: (slot: Slot) => Slot): SingleKernel {
  if (kernel.kind === "group") throw new Error("Kernels are grouped last.");
  const bound = known.get(kernel);
  if (!bound) return renamedKernel(kernel, reads, writes);
  const [read, written] = [new Set(readsOf(kernel)), new Set(writesOf(kernel))];
  if (bound.slots.some((slot) => read.has(slot) && written.has(slot) && reads(slot) !== writes(slot)))
    return renamedKernel(kernel, reads, writes);
  return bind(
    bound.template,
    bound.slots.map((slot) => (written.has(slot) ? writes(slot) : reads(slot))),
  );
}

/** A text that is equal exactly for equal data; what is shared is said once. */
function textOf(root: object): string {
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
