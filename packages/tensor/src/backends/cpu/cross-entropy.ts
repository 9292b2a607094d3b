import { type Expr, ExprMakers } from "../../kernels/expr.js";
import type { CompositeKernel, LoopKernel, MatmulKernel, MatrixView, Slot, Store } from "../../kernels/kernel.js";
import { substitute } from "../../kernels/substitute.js";
import { ignoredLabel } from "../../ops/cross-entropy.js";
import type { DType } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import { type ChosenRows, countedStep, listStep, moveStep, type RowArray } from "./chosen-rows.js";
import type { KernelLibrary } from "./library.js";
import { loopSteps } from "./loop.js";
import { type MatmulOptions, matmulSteps } from "./matmul.js";
import { movedSteps } from "./move.js";
import type { Step, StepList, Word } from "./steps.js";

/**
 * Linear cross-entropy by chunks of rows (Hsu et al. 2024, "Liger Kernel"; Wijmans et al. 2024, "Cut Your Losses"): the logits of a chunk
 * are computed into scratch memory, turned there into losses and into their own gradient, multiplied by the weight, and forgotten. A chunk
 * is of rows whose label counts, moved together: a prompt, which is often half of all rows, costs nothing.
 */

/** Where the operands and results stand among a composite's; null where it has none of the kind. */
interface Roles {
  readonly inputs: readonly Role[];
  readonly outputs: readonly Role[];
}

type Role = "hidden" | "weight" | "labels" | "total" | "dLoss" | "loss" | "dHidden" | "dWeight";

const composites: Readonly<Record<string, Roles>> = {
  linearCrossEntropy: { inputs: ["hidden", "weight", "labels"], outputs: ["loss", "total"] },
  linearCrossEntropyBackward: { inputs: ["hidden", "weight", "labels", "total", "dLoss"], outputs: ["dHidden", "dWeight"] },
  linearCrossEntropyTraining: { inputs: ["hidden", "weight", "labels", "dLoss"], outputs: ["loss", "total", "dHidden", "dWeight"] },
};

/** Bytes of logits that exist at a time, and rows that a chunk has all the same: the weight is read anew for each. */
const chunkBytes = 8 * 2 ** 20;
const leastRows = 128;
/** Bytes of packed weight that are multiplied at a time. */
const packedBytes = 8 * 2 ** 20;
/** Classes are taken in multiples of this many: the depth that the product sums at a time. */
const classStep = 256;
/**
 * Classes whose exponentials are summed apart before the sums are: one class often has nearly all of a row's probability, and what is far
 * below it would be lost in its rounding, of thousands of classes always to the same side.
 */
const classesOfSum = { usual: 512, least: 32 };
/** The bits of the largest f32: as the logsumexp of a row that does not count, it makes probabilities of zero. */
const ignoredTotal = 0x7f7fffff;

export function supportsCrossEntropy(kernel: CompositeKernel): boolean {
  return kernel.name in composites && kernel.inputShapes.every((shape) => sizeOf(shape) > 0);
}

/**
 * The steps of `linearCrossEntropy`, its gradient, or both in one; slots from `slotCount` on are its own. Long: the places in scratch memory and
 * the steps that name them are read together.
 */
export function crossEntropySteps(
  kernel: CompositeKernel,
  slotCount: number,
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
): StepList {
  const roles = composites[kernel.name];
  if (!roles) throw new Error(`cpu: no kernel for composite ${kernel.name}. Ask supports() first.`);
  const given = new Map<Role, Slot>();
  for (const [i, role] of roles.inputs.entries()) given.set(role, kernel.inputs[i] as Slot);
  // The gradient of a frozen weight is none of them.
  for (const [i, slot] of kernel.outputs.entries()) given.set(roles.outputs[i] as Role, slot);
  const [[rows = 0, width = 0] = [], [classes = 0] = []] = kernel.inputShapes;
  const chunks = Math.ceil(rows / Math.max(leastRows, Math.floor(chunkBytes / 4 / classes)));
  const chunkRows = Math.ceil(rows / chunks / 4) * 4;

  // In scratch memory: where the rows that count are, and of a chunk of these the operands that have rows, the logits, and of each row the
  // largest and the label's. The steps name it by slots of their own.
  let ownBytes = 0;
  const offsets: number[] = [];
  const reserve = (words: number): Slot => {
    offsets.push(ownBytes);
    ownBytes += Math.ceil(words / 16) * 64;
    return slotCount + offsets.length - 1;
  };
  const [places, counts, logits] = [reserve(rows), reserve(chunks), reserve(chunkRows * classes)];
  const [largest, chosen, scale] = [reserve(chunkRows), reserve(chunkRows), reserve(chunkRows)];
  const blocks = blocksOf(classes);
  const sums = reserve(chunkRows * blocks);
  const own = new Map<Role, Slot>();
  for (const role of ["hidden", "labels", "total", "dLoss", "loss"] as const)
    if (given.has(role)) own.set(role, reserve(role === "hidden" ? chunkRows * width : chunkRows));
  const of = (role: Role): Slot => own.get(role) ?? (given.get(role) as Slot);
  // The hidden rows make room for their gradient, which comes last.
  if (given.has("dHidden")) own.set("dHidden", of("hidden"));
  const slotEnd = slotCount + offsets.length;
  const typeOf = (slot: Slot): DType => (slot < slotCount ? dtypeOf(slot) : slot === of("labels") ? "i32" : "f32");

  const steps: Step[] = [];
  let scratchBytes = 0;
  const add = (list: StepList): void => {
    scratchBytes = Math.max(scratchBytes, list.scratchBytes);
    for (const step of movedSteps(list.steps, (word) => {
      if (word.kind === "scratch") return { kind: "scratch", offset: ownBytes + word.offset };
      if (word.kind !== "slot" || word.slot < slotCount) return word;
      return { kind: "scratch", offset: (offsets[word.slot - slotCount] ?? 0) + (word.byteOffset ?? 0) };
    }))
      steps.push(step);
  };
  const whole = (role: Role): Word => ({ kind: "slot", slot: given.get(role) as Slot });
  const counting: ChosenRows = {
    labels: whole("labels"),
    skipped: ignoredLabel,
    places: { kind: "slot", slot: places },
    counts: { kind: "slot", slot: counts },
    rows,
    chunkRows,
  };
  const move = (way: "together" | "back", row: number, roles: readonly Role[]): void => {
    const arrays = roles
      .filter((role) => own.has(role))
      .map((role): RowArray => {
        const [all, part] = [whole(role), { kind: "slot", slot: of(role) } as const];
        const bytes = 4 * (role === "hidden" || role === "dHidden" ? width : 1);
        const fill = role === "total" ? ignoredTotal : 0;
        return way === "together" ? { from: all, to: part, bytes, fill } : { from: part, to: all, bytes, fill };
      });
    add({ steps: [moveStep(way, counting, row, arrays, library)], scratchBytes: 0 });
  };
  add({ steps: [listStep(counting, library)], scratchBytes: 0 });
  const classesAtOnce = Math.max(classStep, Math.floor(packedBytes / 4 / width / classStep) * classStep);
  for (let row = 0; row < rows; row += chunkRows) {
    const m = Math.min(chunkRows, rows - row);
    const count: Word = { kind: "slot", slot: counts, byteOffset: (row / chunkRows) * 4 };
    const multiply = (sizes: Sizes, a: MatrixView, b: MatrixView, out: Slot, options: MatmulOptions): void => {
      const product: MatmulKernel = { kind: "matmul", batch: [], ...sizes, a, b, out };
      add(matmulSteps(product, typeOf, library, options));
    };
    move("together", row, roles.inputs);
    const hidden = view(of("hidden"), width, 1);
    multiply({ m, n: classes, k: width }, hidden, view(of("weight"), 1, width), logits, { rows: count });
    const softmax = { of, own, logits, largest, chosen, scale, sums, rows: m, classes, blocks, bodies: kernel.bodies ?? [] };
    for (const loop of softmaxLoops(softmax)) {
      const list = loopSteps(loop, slotEnd, typeOf, library);
      const perRow = (loop.outer[0] ?? m) / m;
      add({ ...list, steps: list.steps.map((step) => countedStep(step, count, library, perRow)) });
    }
    if (given.has("dWeight")) {
      multiply({ m: classes, n: width, k: m }, view(logits, 1, classes), hidden, of("dWeight"), { adds: row > 0, depth: count });
    }
    for (let first = 0; own.has("dHidden") && first < classes; first += classesAtOnce) {
      const sizes = { m, n: width, k: Math.min(classesAtOnce, classes - first) };
      const weight = view(of("weight"), width, 1, first * width);
      multiply(sizes, view(logits, classes, 1, first), weight, of("dHidden"), { adds: first > 0, rows: count });
    }
    move("back", row, roles.outputs);
  }
  return { steps, scratchBytes: ownBytes + scratchBytes };
}

/** Blocks of equal size that classes are summed in: of the usual one or less, else of the next that divides them. */
function blocksOf(classes: number): number {
  for (let size = Math.min(classesOfSum.usual, classes); size >= classesOfSum.least; size--)
    if (classes % size === 0) return classes / size;
  let size = classesOfSum.usual;
  while (size < classes && classes % size !== 0) size++;
  return Math.max(1, Math.floor(classes / size));
}

interface Sizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

function view(slot: Slot, rowStride: number, columnStride: number, offset: number = 0): MatrixView {
  return { slot, offset, batchStrides: [], rowStride, columnStride };
}

/** What the loops over a chunk's logits work on. */
interface Softmax {
  readonly of: (role: Role) => Slot;
  readonly own: ReadonlyMap<Role, Slot>;
  readonly logits: Slot;
  readonly largest: Slot;
  readonly chosen: Slot;
  /** One over the sum of a row's exponentials. */
  readonly scale: Slot;
  /** Of each row and block, the sum of exponentials. */
  readonly sums: Slot;
  readonly rows: number;
  readonly classes: number;
  readonly blocks: number;
  /** What becomes of a logit, and for gradients its slope; empty without. */
  readonly bodies: readonly Expr[];
}

/** The loops that make losses, the logits' gradient, or both of a chunk's logits. */
function softmaxLoops(softmax: Softmax): LoopKernel[] {
  const { own, bodies } = softmax;
  if (!own.has("dHidden")) return lossLoops(softmax, false);
  if (!own.has("loss")) return [gradientLoop(softmax, false)];
  // A body's slope needs the logits themselves, which are then not replaced by their exponentials.
  const keepsExponentials = bodies.length === 0;
  return [...lossLoops(softmax, keepsExponentials), gradientLoop(softmax, keepsExponentials)];
}

/** The expressions that the loops share: of all classes of a row, or of a block of a row's where `isBlocked`. */
function terms(make: ExprMakers, { of, own, logits, rows, classes, blocks, bodies }: Softmax, isBlocked = false) {
  const block = make.variable(0, rows * blocks);
  const row = isBlocked ? make.index("div", block, make.int(blocks)) : make.variable(0, rows);
  const size = classes / blocks;
  const within = make.variable(1, size);
  const column = isBlocked
    ? make.add(make.mul(make.index("mod", block, make.int(blocks)), make.int(size)), within)
    : make.variable(1, classes);
  const at = isBlocked ? make.add(make.mul(block, make.int(size)), within) : make.add(make.mul(row, make.int(classes)), column);
  const label = make.load("i32", of("labels"), row);
  const zero = make.constant("f32", 0);
  const isLabel = make.binary("eq", column, label);
  const plain = make.load("f32", logits, at);
  const seen = new Map<Expr, Expr>();
  // Bodies are those of one row, whose only variable is the class.
  const [logit = plain, slope] = bodies.map((body) => substitute(body, make, () => column, seen, plain));
  const share = own.has("dHidden") ? make.load("f32", of("dLoss"), row) : zero;
  return {
    block,
    row,
    at,
    logit,
    ifLabel: make.select(isLabel, logit, zero),
    /** (softmax − onehot) · dLoss, times the body's slope. */
    gradient: (probability: Expr): Expr => {
      const dLogit = make.binary("mul", make.binary("sub", probability, make.cast("f32", isLabel)), share);
      return slope ? make.binary("mul", dLogit, slope) : dLogit;
    },
  };
}

/** From logsumexp the logits' own gradient in their place; `fromExponentials` where that holds exp(logit − largest) instead of the logit. */
function gradientLoop(softmax: Softmax, fromExponentials: boolean): LoopKernel {
  const make = new ExprMakers();
  const { of, logits, scale, rows, classes } = softmax;
  const { row, at, logit, gradient } = terms(make, softmax);
  const probability = fromExponentials
    ? make.binary("mul", logit, make.load("f32", scale, row))
    : make.unary("exp", make.binary("sub", logit, make.load("f32", of("total"), row)));
  const store: Store = { scope: "element", slot: logits, index: at, value: gradient(probability) };
  return { kind: "loop", outer: [rows], inner: classes, reductions: [], stores: [store] };
}

/** The losses and their logsumexp; with `keepsExponentials`, exp(logit − largest) where the logits were, so that each is computed once. */
function lossLoops(softmax: Softmax, keepsExponentials: boolean): LoopKernel[] {
  const { rows, classes, blocks } = softmax;
  return [
    { kind: "loop", outer: [rows], inner: classes, ...largestLogit(softmax) },
    { kind: "loop", outer: [rows * blocks], inner: classes / blocks, ...sumsOfBlocks(softmax, keepsExponentials) },
    { kind: "loop", outer: [rows], inner: blocks, ...lossOfSums(softmax) },
  ];
}

type Body = Pick<LoopKernel, "reductions" | "stores">;

function largestLogit(softmax: Softmax): Body {
  const make = new ExprMakers();
  const { row, logit, ifLabel } = terms(make, softmax);
  return {
    reductions: [
      { combine: "max", value: logit },
      { combine: "sum", value: ifLabel },
    ],
    stores: [
      { scope: "row", slot: softmax.largest, index: row, value: make.accumulator("f32", 0) },
      { scope: "row", slot: softmax.chosen, index: row, value: make.accumulator("f32", 1) },
    ],
  };
}

function sumsOfBlocks(softmax: Softmax, keepsExponentials: boolean): Body {
  const make = new ExprMakers();
  const { logits, largest, sums } = softmax;
  const { block, row, at, logit } = terms(make, softmax, true);
  const exponential = make.unary("exp", make.binary("sub", logit, make.load("f32", largest, row)));
  const partial: Store = { scope: "row", slot: sums, index: block, value: make.accumulator("f32", 0) };
  const kept: Store = { scope: "element", slot: logits, index: at, value: exponential };
  return { reductions: [{ combine: "sum", value: exponential }], stores: keepsExponentials ? [partial, kept] : [partial] };
}

function lossOfSums({ of, largest, chosen, scale, sums, rows, blocks }: Softmax): Body {
  const make = new ExprMakers();
  const row = make.variable(0, rows);
  const partial = make.load("f32", sums, make.add(make.mul(row, make.int(blocks)), make.variable(1, blocks)));
  const sum = make.accumulator("f32", 0);
  const [most, log] = [make.load("f32", largest, row), make.unary("log", sum)];
  return {
    reductions: [{ combine: "sum", value: partial }],
    stores: [
      { scope: "row", slot: scale, index: row, value: make.binary("div", make.constant("f32", 1), sum) },
      { scope: "row", slot: of("total"), index: row, value: make.binary("add", log, most) },
      // The small loss of a sure prediction is no difference of large numbers.
      {
        scope: "row",
        slot: of("loss"),
        index: row,
        value: make.binary("add", log, make.binary("sub", most, make.load("f32", chosen, row))),
      },
    ],
  };
}
