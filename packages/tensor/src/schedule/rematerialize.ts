import type { Slot } from "../kernels/kernel.js";
import { operationsOf } from "../kernels/statistics.js";
import { type Bound, boundOf, withSlots } from "../kernels/template.js";
import type { DType } from "../tensor/dtype.js";
import type { Draft, DraftSlot } from "./draft.js";
import { alignedBytes } from "./liveness.js";

/** Operations that take about as long as moving one byte; processors and GPUs lie between 5 and 30. */
const operationsPerByte = 10;
/** Operands this many times smaller than a value are kept for its sake; larger ones are computed again with it. */
const keptShare = 8;
/** Kernels that run again for one value at most. */
const maxRuns = 8;
/** Values that are tried, the cheapest first, before the peak counts as the lowest. */
const maxTrials = 16;
/** Kernels that are looked at while values are given up one by one: what the last of many gain is little. */
const maxVisits = 50_000;

/**
 * The plan with as much computed twice as it takes to keep at most `limitBytes` of its own values alive: at the moment of the peak, the
 * value that is cheapest to compute again for the bytes that it frees is given up between two of its uses, until the peak fits or nothing
 * more can be gained. XLA calls it rematerialisation; checkpointing of activations (Chen et al. 2016) falls out of it. Results do not
 * change in a single bit, and kernels keep their order. `fits` says whether the limit is kept.
 */
export function rematerialized(draft: Draft, limitBytes: number): { readonly draft: Draft; readonly fits: boolean } {
  let current = draft;
  let lives = new Lives(draft, new Map());
  for (let visits = 0; lives.peakBytes > limitBytes && visits < maxVisits; ) {
    const many = loweredByMany(current, lives, limitBytes);
    if (!many) visits += current.kernels.length;
    const better = many ?? lowered(current, lives);
    if (!better) break;
    ({ draft: current, lives } = better);
  }
  return { draft: current, fits: lives.peakBytes <= limitBytes };
}

/** A plan whose kernels are looked at together with what is alive at each. */
interface Examined {
  readonly draft: Draft;
  readonly lives: Lives;
}

/**
 * The plan with as many values computed twice at once as free half of what is too much at the peak, or with fewer; null where one alone
 * does. Halves keep the number of plans that are looked at small, and the choice near the one that looks again after each value.
 */
function loweredByMany(draft: Draft, lives: Lives, limitBytes: number): Examined | null {
  const sorted = choices(lives);
  for (let goal = (lives.peakBytes - limitBytes) / 2; ; goal /= 4) {
    const many = independent(sorted, goal, lives);
    if (many.length < 2) return null;
    // From the last use to the first, so that the places of the others stay what they were.
    let examined: Draft = draft;
    let { equals } = lives;
    for (const choice of many.sort((a, b) => b.next - a.next)) ({ draft: examined, equals } = repeated(examined, choice, lives, equals));
    const candidate = { draft: examined, lives: new Lives(examined, equals) };
    if (candidate.lives.peakBytes < lives.peakBytes) return candidate;
  }
}

/** The cheapest choices that together free no more than `goal` bytes, none of which touches what another one computes again. */
function independent(sorted: readonly Choice[], goal: number, lives: Lives): Choice[] {
  const taken: Choice[] = [];
  const touched = new Set<Slot>();
  let left = goal;
  for (const choice of sorted) {
    if (choice.freed > left) continue;
    const slots = choice.runs.flatMap((run) => [run, ...(lives.equals.get(run) ?? []), ...(producerOf(run, lives) as Bound).reads]);
    if (slots.some((slot) => touched.has(slot) && lives.uses.has(slot))) continue;
    for (const slot of slots) touched.add(slot);
    taken.push(choice);
    left -= choice.freed;
  }
  return taken;
}

/** The plan with the first value computed twice that lowers the peak. */
function lowered(draft: Draft, lives: Lives): Examined | null {
  for (const choice of choices(lives).slice(0, maxTrials)) {
    const { draft: candidate, equals } = repeated(draft, choice, lives, lives.equals);
    const its = new Lives(candidate, equals);
    if (isLower(its, lives)) return { draft: candidate, lives: its };
  }
  return null;
}

/** A value that is given up between two uses. */
interface Choice {
  readonly slot: Slot;
  /** The use before which it is computed again. */
  readonly next: number;
  /** What has to be computed again, in order; the value itself is the last. */
  readonly runs: readonly Slot[];
  /** Bytes that become free where memory is scarcest. */
  readonly freed: number;
  /** Work for each of them. */
  readonly price: number;
}

/** When each inner slot of a plan is written and read, and how many bytes are alive at each kernel. */
class Lives {
  /** The kernels that touch a slot, in order; the first writes it. */
  readonly uses: Map<Slot, number[]> = new Map();
  /** Kernels that write a slot from outside the plan. */
  readonly overwritten: Map<Slot, number[]> = new Map();
  readonly bytesAt: readonly number[];
  readonly peakBytes: number;
  readonly peak: number;
  readonly kernels: readonly Bound[];
  readonly slots: readonly DraftSlot[];

  constructor(
    { kernels, slots }: Draft,
    /** All slots that hold the same value, for each of them. */
    readonly equals: ReadonlyMap<Slot, readonly Slot[]>,
  ) {
    this.kernels = kernels;
    this.slots = slots;
    for (const [step, kernel] of kernels.entries()) {
      const written = new Set(kernel.writes);
      for (const slot of new Set([...written, ...kernel.reads])) {
        const isInner = slots[slot]?.binding === null;
        if (isInner || written.has(slot)) append(isInner ? this.uses : this.overwritten, slot, step);
      }
    }
    const change = new Array<number>(kernels.length + 1).fill(0);
    for (const [slot, steps] of this.uses) {
      const [first = 0, end = 0] = [steps[0], (steps.at(-1) ?? 0) + 1];
      change[first] = (change[first] ?? 0) + this.bytes(slot);
      change[end] = (change[end] ?? 0) - this.bytes(slot);
    }
    let alive = 0;
    this.bytesAt = change.slice(0, -1).map((bytes) => {
      alive += bytes;
      return alive;
    });
    this.peakBytes = this.bytesAt.reduce((peak, bytes) => Math.max(peak, bytes), 0);
    this.peak = this.bytesAt.indexOf(this.peakBytes);
  }

  bytes(slot: Slot): number {
    const info = this.slots[slot];
    return info?.binding === null ? alignedBytes(info) : 0;
  }

  /** The slot, or another one of the same value, that is there right before a kernel and is needed from then on; null if there is none. */
  holder(slot: Slot, step: number): Slot | null {
    const isThere = (candidate: Slot): boolean => {
      const uses = this.uses.get(candidate);
      return uses !== undefined && (uses[0] ?? step) < step && (uses.at(-1) ?? 0) >= step;
    };
    return [slot, ...(this.equals.get(slot) ?? [])].find(isThere) ?? null;
  }
}

function append(lists: Map<Slot, number[]>, slot: Slot, step: number): void {
  const list = lists.get(slot);
  if (list) list.push(step);
  else lists.set(slot, [step]);
}

/** A lower peak, or one that is reached less often. */
function isLower(lives: Lives, than: Lives): boolean {
  const count = (of: Lives): number => of.bytesAt.filter((bytes) => bytes === of.peakBytes).length;
  return lives.peakBytes < than.peakBytes || (lives.peakBytes === than.peakBytes && count(lives) < count(than));
}

/** The values that may be given up at the peak, the cheapest first; of equals the one that is gone the longest. */
function choices(lives: Lives): Choice[] {
  const found: Choice[] = [];
  for (const slot of lives.uses.keys()) {
    const choice = choiceFor(slot, lives);
    if (choice) found.push(choice);
  }
  return found.sort((a, b) => a.price - b.price || b.next - a.next);
}

/** What giving up a value around the peak costs; null where that is impossible or frees nothing. */
function choiceFor(slot: Slot, lives: Lives): Choice | null {
  const uses = lives.uses.get(slot) ?? [];
  const next = uses.find((step) => step > lives.peak);
  const last = uses.findLast((step) => step <= lives.peak);
  if (next === undefined || last === undefined || last === lives.peak) return null;
  const runs: Slot[] = [];
  const kept = new Set<Slot>();
  if (!canRun(slot, next, lives, runs, kept)) return null;
  let freed = lives.bytes(slot);
  for (const other of kept) if ((lives.uses.get(other)?.at(-1) ?? 0) < lives.peak) freed -= lives.bytes(other);
  if (freed <= 0) return null;
  let work = 0;
  for (const run of runs) {
    const kernel = producerOf(run, lives) as Bound; // canRun saw it
    work += operationsOf(kernel.template.kernel) / operationsPerByte;
    for (const touched of [...kernel.reads, ...kernel.writes]) work += alignedBytes(lives.slots[touched] as DraftSlot);
  }
  return { slot, next, runs, freed, price: work / freed };
}

/** The kernel that can compute a slot a second time, if there is one. */
function producerOf(slot: Slot, { kernels, slots, uses }: Lives): Bound | null {
  const [first = -1, ...later] = uses.get(slot) ?? [];
  const kernel = kernels[first];
  if (!kernel || kernel.kind === "copy") return null;
  const writes = kernel.writes;
  if (!writes.includes(slot) || writes.some((other) => slots[other]?.binding !== null)) return null;
  return later.some((step) => (kernels[step] as Bound).writes.includes(slot)) ? null : kernel;
}

/**
 * Whether a value can be computed again right before a kernel. Adds to `runs` what has to run for it, in order, and to `kept` the
 * operands that have to live longer than now.
 */
function canRun(slot: Slot, next: number, lives: Lives, runs: Slot[], kept: Set<Slot>): boolean {
  if (runs.includes(slot)) return true;
  const producer = producerOf(slot, lives);
  const first = lives.uses.get(slot)?.[0] ?? 0;
  if (!producer || runs.length >= maxRuns) return false;
  for (const read of producer.reads) {
    if (lives.overwritten.get(read)?.some((step) => step > first && step < next)) return false;
    if (!lives.uses.has(read) || lives.holder(read, next) !== null) continue;
    if (lives.bytes(read) * keptShare > lives.bytes(slot) && canRun(read, next, lives, runs, kept)) continue;
    kept.add(read);
  }
  runs.push(slot);
  return true;
}

/** The plan with values computed again right before a kernel, which that one and the later ones then read. */
function repeated(
  { kernels, slots }: Draft,
  { slot, next, runs }: Choice,
  lives: Lives,
  before: ReadonlyMap<Slot, readonly Slot[]>,
): { readonly draft: Draft; readonly equals: ReadonlyMap<Slot, readonly Slot[]> } {
  const grown = [...slots];
  const equals = new Map(before);
  const copies = new Map<Slot, Slot>();
  /** What later kernels read instead: the value itself, and operands that would be computed a third time. */
  const replaced = new Map<Slot, Slot>();
  const again = runs.map((run) => {
    const producer = producerOf(run, lives) as Bound; // canRun saw it
    const results = new Map(producer.writes.map((old) => [old, grown.push(slots[old] as DraftSlot) - 1]));
    const copy = results.get(run) as Slot; // the producer writes it
    const kernel = withSlots(
      producer,
      (read) => copies.get(read) ?? lives.holder(read, next) ?? read,
      (written) => results.get(written) ?? written,
    );
    copies.set(run, copy);
    const group = equals.get(run) ?? [run];
    for (const other of group) if (other === slot || (lives.uses.get(other)?.[0] ?? 0) > next) replaced.set(other, copy);
    for (const other of [...group, copy]) equals.set(other, [...group, copy]);
    return onlyStores(kernel, copy, grown);
  });
  const later = kernels.slice(next).filter((kernel) => !kernel.writes.every((written) => written !== slot && replaced.has(written)));
  const swapped = later.map((kernel) =>
    kernel.reads.some((read) => replaced.has(read))
      ? withSlots(
          kernel,
          (read) => replaced.get(read) ?? read,
          (written) => written,
        )
      : kernel,
  );
  const draft = { slots: grown, kernels: [...kernels.slice(0, next), ...again, ...swapped] };
  return { draft, equals };
}

/** The kernel without results that nobody asked for, where they are stores of their own and no sum may be taken in another order without them. */
function onlyStores(bound: Bound, slot: Slot, slots: readonly DraftSlot[]): Bound {
  const { kernel } = bound;
  if (kernel.kind !== "loop" || kernel.reductions.length > 0 || kernel.stores.length === 1) return bound;
  const dtypeOf = (touched: Slot): DType => (slots[touched] as DraftSlot).dtype; // the plan's own number
  return boundOf({ ...kernel, stores: kernel.stores.filter((store) => store.slot === slot) }, dtypeOf);
}
