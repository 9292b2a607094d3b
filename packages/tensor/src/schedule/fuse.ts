import { type Expr, ExprMakers, expressionsBelow } from "../kernels/expr.js";
import { type LoopKernel, type MatmulKernel, type Reduction, rootsOf, type Slot, type Store } from "../kernels/kernel.js";
import { substitute } from "../kernels/substitute.js";
import { type Bound, bind, boundOf, type Template } from "../kernels/template.js";
import { computeDType, type DType } from "../tensor/dtype.js";
import type { Draft } from "./draft.js";
import { linearIndex } from "./lower.js";
import { costly } from "./partition.js";
import { type Place, Sequence } from "./sequence.js";
import { type Aligned, align, alignments, sameIndex } from "./space.js";
import { Index, type Joined } from "./touching.js";
import { work } from "./work.js";

/** Beyond this many expressions a kernel gains nothing from growing: what it saves is a read, what it costs are registers. */
const maxExpressions = 600;

/**
 * Kernels that run over the same rows and elements, where one reads what the other writes only at its own position, become one: the value
 * stays in a register, and is stored as well if others need it. Works on plans that write each slot once.
 */
export function fused(draft: Draft, maxBindings: number = Number.POSITIVE_INFINITY, known: KnownJoins = new KnownJoins()): Draft {
  const sequence = new Sequence<Bound>(draft.kernels);
  const index = new Index(sequence, draft.slots.length);
  /** What comes after a kernel that went to where an earlier one stood. */
  let resume: Place<Bound> | null | undefined;
  for (let place = sequence.first; place; ) {
    const joined = joinedWithProducer(place, index, draft, maxBindings, known);
    if (joined) {
      if (!joined.dependents && resume === undefined) resume = place.next;
      // What was joined may be joined again.
      place = index.replace(joined, place);
    } else {
      place = resume === undefined ? place.next : resume;
      resume = undefined;
    }
  }
  return { slots: draft.slots, kernels: [...sequence] };
}

/** A kernel joined with the nearest of those that it reads from with which that is possible. */
function joinedWithProducer(place: Place<Bound>, index: Index, draft: Draft, maxBindings: number, known: KnownJoins): Joined | null {
  const second = place.item;
  if (second.kind !== "loop") return null;
  const producers = index.producersOf(place);
  for (let nearness = 0; nearness < producers.length; nearness++) {
    const producer = producers[nearness] as Place<Bound>; // within bounds
    const first = producer.item;
    if (!mayJoin(first, second) || !known.mayAlign(first.template, second.template)) continue;
    const isNeeded = (slot: Slot): boolean => draft.slots[slot]?.binding !== null || index.isReadByOthers(slot, producer, place);
    let dependents: Place<Bound>[] | null | undefined;
    const findDependents = (): typeof dependents =>
      dependents === undefined ? (dependents = index.dependentsOf(producer, place)) : dependents;
    // Behind the nearest one all is there that the second reads, however far it stands from it.
    const mayMove = (): boolean => nearness === 0 || findDependents() !== null;
    const made = known.joined(first, second, draft, isNeeded, mayMove);
    if (!made || made.slots.length > maxBindings || !mayMove()) continue;
    return { first: producer, kernel: bind(made.template, made.slots), dependents: findDependents() ?? null };
  }
  return null;
}

/** A joined kernel as a template whose operands are some of those of the first kernel, then of the others of the second. */
type Outcome = { readonly template: Template; readonly operands: readonly number[] } | null;

/** What became of two templates where the second one's operands are certain ones of both, and certain results of the first are needed. */
interface Pairing {
  readonly words: readonly number[];
  readonly outcome: Outcome;
}

/** Pairs that are remembered; beyond it all are forgotten, which costs time and nothing else. */
const maxPairs = 16384;

/** What became of pairs of kernels, so that equal ones are joined once. */
export class KnownJoins {
  /** By the numbers of two templates. */
  readonly #known = new Map<number, Pairing[]>();
  readonly #mayAlign = new Map<number, boolean>();
  #count = 0;
  readonly #words: number[] = [];

  /** Whether kernels of two templates run over the same loops, whatever they compute there. */
  mayAlign(first: Template, second: Template): boolean {
    const key = first.id * 2 ** 26 + second.id;
    let answer = this.#mayAlign.get(key);
    if (answer === undefined) {
      if (this.#mayAlign.size >= maxPairs) this.#mayAlign.clear();
      answer = mayAlign(first.kernel as LoopKernel | MatmulKernel, second.kernel as LoopKernel); // mayJoin ruled out others
      this.#mayAlign.set(key, answer);
    }
    return answer;
  }

  /**
   * Two kernels as one that stores what of the first one's results `isNeeded`; null where they stay apart. What is not known is found out
   * only if `isOfUse`.
   */
  joined(
    a: Bound,
    b: Bound,
    draft: Draft,
    isNeeded: (slot: Slot) => boolean,
    isOfUse: () => boolean,
  ): { readonly template: Template; readonly slots: readonly Slot[] } | null {
    const slots = [...a.slots];
    const words = this.#words;
    let length = 0;
    for (let i = 0; i < b.slots.length; i++) {
      const slot = b.slots[i] as Slot; // within bounds
      let operand = slots.indexOf(slot);
      if (operand < 0) operand = slots.push(slot) - 1;
      words[length++] = operand;
    }
    for (let i = 0; i < a.writes.length; i++) words[length++] = Number(isNeeded(a.writes[i] as Slot));
    const key = a.template.id * 2 ** 26 + b.template.id;
    const pairings = this.#known.get(key);
    let outcome = pairings?.find((pairing) => isPrefix(pairing.words, words))?.outcome;
    if (outcome === undefined) {
      if (!isOfUse()) return null;
      work.joined++;
      const dtypeOf = (slot: Slot): DType => (draft.slots[slot] as Draft["slots"][number]).dtype; // the plan's own number
      const [first, second] = [a.kernel as LoopKernel | MatmulKernel, b.kernel as LoopKernel]; // mayJoin ruled out others
      const made = first.kind === "loop" ? join(first, second, draft, isNeeded) : withEpilogue(first, second, draft, isNeeded);
      const bound = made && boundOf(made, dtypeOf);
      outcome = bound && { template: bound.template, operands: bound.slots.map((slot) => slots.indexOf(slot)) }; // those of the two
      this.#note(key, { words: words.slice(0, length), outcome });
    }
    if (!outcome) return null;
    return { template: outcome.template, slots: outcome.operands.map((operand) => slots[operand] as Slot) }; // equal pairs have as many slots
  }

  #note(key: number, pairing: Pairing): void {
    if (this.#count++ >= maxPairs) {
      this.#known.clear();
      this.#count = 1;
    }
    const others = this.#known.get(key);
    if (others) others.push(pairing);
    else this.#known.set(key, [pairing]);
  }
}

/** Whether a list begins with all of another one. */
function isPrefix(prefix: readonly number[], list: readonly number[]): boolean {
  for (let i = 0; i < prefix.length; i++) if (prefix[i] !== list[i]) return false;
  return true;
}

/** What is written over something else is complete only after its kernel; what is read from it whole is not at hand. */
function mayJoin({ template: { kernel: first }, writes }: Bound, second: Bound): boolean {
  if ((first.kind !== "loop" && first.kind !== "matmul") || (first.kind === "loop" && first.over !== undefined)) return false;
  const { kernel } = second.template;
  if (kernel.kind !== "loop" || kernel.over === undefined) return true;
  return first.kind === "loop" && !writes.includes(second.slots[kernel.over.from] as Slot);
}

function join(first: LoopKernel, second: LoopKernel, draft: Draft, isNeeded: (slot: Slot) => boolean): LoopKernel | null {
  for (const alignment of alignments(first, second)) {
    const aligned = align(alignment);
    const values = valuesFor(aligned, draft);
    if (!values) continue;
    const { make, outer, inner } = aligned;
    const shift = aligned.first.reductions.length;
    const to = <T extends Expr>(expr: T) => renumbered(expr, make, shift, values);
    const reductions: Reduction[] = [
      ...aligned.first.reductions,
      ...aligned.second.reductions.map((reduction) => ({ ...reduction, value: to(reduction.value) })),
    ];
    const stores: Store[] = [
      ...aligned.first.stores.filter((store) => isNeeded(store.slot)),
      ...aligned.second.stores.map((store) => ({ ...store, index: to(store.index), value: to(store.value) })),
    ];
    const isInnerUsed = reductions.length > 0 || stores.some((store) => store.scope === "element");
    const over = second.over === undefined ? {} : { over: second.over };
    const kernel: LoopKernel = { kind: "loop", outer, inner: isInnerUsed ? inner : 1, reductions, stores, ...over };
    return expressionCount(kernel) <= maxExpressions ? kernel : null;
  }
  return null;
}

/** Whether two kernels run over the same loops, whatever they compute there. */
function mayAlign(first: LoopKernel | MatmulKernel, second: LoopKernel): boolean {
  if (first.kind === "loop") return alignments(first, second).length > 0;
  const { batch, m, n, epilogue } = first;
  if (second.reductions.length > 0) return false;
  return alignments({ kind: "loop", outer: epilogue?.outer ?? [...batch, m], inner: n, reductions: [], stores: [] }, second).length > 0;
}

/** A product whose elements go through an elementwise kernel before they are stored. */
function withEpilogue(first: MatmulKernel, second: LoopKernel, draft: Draft, isNeeded: (slot: Slot) => boolean): MatmulKernel | null {
  if (second.reductions.length > 0 || first.m * first.n === 0) return null;
  const joined = join(productLoop(first), second, draft, isNeeded);
  if (!joined || joined.inner !== first.n || joined.stores.some((store) => store.scope === "row")) return null;
  const plain = joined.stores.find((store) => store.slot === first.out && store.value.op === "accumulator");
  const stores = joined.stores.filter((store) => store !== plain);
  // Where nobody needs the product, its memory is that of a result that replaces it.
  const holder = plain ?? stores.find((store) => draft.slots[store.slot]?.dtype === "f32");
  if (!holder) return null;
  return { ...first, out: holder.slot, epilogue: { outer: joined.outer, inner: joined.inner, stores } };
}

/** What a product stores, as a loop kernel in which accumulator 0 is its element. */
function productLoop({ batch, m, n, out, epilogue }: MatmulKernel): LoopKernel {
  const stores = epilogue?.stores ?? [];
  const outer = epilogue?.outer ?? [...batch, m];
  if (stores.some((store) => store.slot === out)) return { kind: "loop", outer, inner: n, reductions: [], stores };
  const make = new ExprMakers();
  const index = linearIndex(
    make,
    [...outer, n].map((size, axis) => make.variable(axis, size)),
    [...outer, n],
  );
  const product: Store = { scope: "element", slot: out, index, value: make.accumulator("f32", 0) };
  return { kind: "loop", outer, inner: n, reductions: [], stores: [product, ...stores] };
}

/** For each load of the second body that reads a result of the first, the value; null when one lies elsewhere or is better kept. */
function valuesFor({ first, second }: Aligned, { slots }: Draft): Map<Expr, Expr> | null {
  const stores = new Map(first.stores.map((store) => [store.slot, store]));
  const values = new Map<Expr, Expr>();
  const reduced = expressionsBelow(second.reductions.map((reduction) => reduction.value));
  for (const load of expressionsBelow(rootsOf(second))) {
    const store = load.op === "load" ? stores.get(load.slot) : undefined;
    if (load.op !== "load" || !store) continue;
    const dtype = slots[store.slot]?.dtype ?? "f32";
    // A narrow type rounds what is stored.
    if (!sameIndex(store.index, load.index) || (dtype !== "bool" && computeDType(dtype) !== dtype)) return null;
    // A reduction computes its operand again, before the pass that stores it.
    if (store.scope === "element" && reduced.has(load) && !isCheap(store.value)) return null;
    values.set(load, store.value);
  }
  return values;
}

/** True when computing a value again costs no more than a few reads. */
function isCheap(value: Expr): boolean {
  let [loads, work] = [0, 0];
  for (const expr of expressionsBelow([value])) {
    if (expr.op === "load") loads++;
    else if (expr.op === "random") return false;
    else if ((expr.op === "unary" || expr.op === "binary" || expr.op === "index") && costly.has(expr.kind)) return false;
    else if (expr.dtype === "f32" && expr.op !== "const" && expr.op !== "accumulator") work++;
  }
  return loads <= 4 && work <= 8;
}

function expressionCount(kernel: LoopKernel): number {
  return expressionsBelow(rootsOf(kernel)).size;
}

/** The expression with its accumulators numbered after those of another kernel, and values in place of loads. */
function renumbered<T extends Expr>(root: T, make: ExprMakers, shift: number, values: ReadonlyMap<Expr, Expr>) {
  const known = new Map(values);
  for (const expr of expressionsBelow([root])) {
    if (expr.op === "accumulator" && !known.has(expr)) known.set(expr, make.accumulator(expr.dtype, expr.index + shift));
  }
  return substitute(root, make, (axis, size) => make.variable(axis, size), known);
}
