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
  const [largest, chosen] = [reserve(chunkRows), reserve(chunkRows)];
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
    const softmax = { of, own, logits, largest, chosen, rows: m, classes, bodies: kernel.bodies ?? [] };
    for (const loop of softmaxLoops(softmax)) {
      const list = loopSteps(loop, slotEnd, typeOf, library);
      add({ ...list, steps: list.steps.map((step) => countedStep(step, count, library)) });
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
  readonly rows: number;
  readonly classes: number;
  /** What becomes of a logit, and for gradients its slope; empty without. */
  readonly bodies: readonly Expr[];
}

/** The loops that make losses, the logits' gradient, or both of a chunk's logits. */
function softmaxLoops(softmax: Softmax): LoopKernel[] {
  const { own, bodies } = softmax;
  if (!own.has("dHidden")) return [lossLoop(softmax)];
  if (!own.has("loss")) return [gradientLoop(softmax)];
  // A body's slope needs the logits themselves, which are then not replaced by their exponentials.
  return bodies.length > 0 ? [lossLoop(softmax), gradientLoop(softmax)] : lossAndGradientLoops(softmax);
}

/** The expressions that the loops share. */
function terms(make: ExprMakers, { of, own, logits, rows, classes, bodies }: Softmax) {
  const row = make.variable(0, rows);
  const column = make.variable(1, classes);
  const at = make.add(make.mul(row, make.int(classes)), column);
  const label = make.load("i32", of("labels"), row);
  const zero = make.constant("f32", 0);
  const isLabel = make.binary("eq", column, label);
  const plain = make.load("f32", logits, at);
  const seen = new Map<Expr, Expr>();
  // Bodies are those of one row, whose only variable is the class.
  const [logit = plain, slope] = bodies.map((body) => substitute(body, make, () => column, seen, plain));
  const share = own.has("dHidden") ? make.load("f32", of("dLoss"), row) : zero;
  return {
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

/** From logsumexp the logits' own gradient in their place. */
function gradientLoop(softmax: Softmax): LoopKernel {
  const make = new ExprMakers();
  const { of, logits, rows, classes } = softmax;
  const { row, at, logit, gradient } = terms(make, softmax);
  const probability = make.unary("exp", make.binary("sub", logit, make.load("f32", of("total"), row)));
  const store: Store = { scope: "element", slot: logits, index: at, value: gradient(probability) };
  return { kind: "loop", outer: [rows], inner: classes, reductions: [], stores: [store] };
}

/** The losses and their logsumexp. */
function lossLoop(softmax: Softmax): LoopKernel {
  const make = new ExprMakers();
  const { of, rows, classes } = softmax;
  const { row, logit, ifLabel } = terms(make, softmax);
  const [largest, sum, chosen] = [0, 1, 2].map((index) => make.accumulator("f32", index)) as [Expr, Expr, Expr];
  const total = make.binary("add", make.unary("log", sum), largest);
  return {
    kind: "loop",
    outer: [rows],
    inner: classes,
    reductions: [
      { combine: "max", value: logit },
      { combine: "sum", value: make.unary("exp", make.binary("sub", logit, largest)) },
      { combine: "sum", value: ifLabel },
    ],
    stores: [
      { scope: "row", slot: of("total"), index: row, value: total },
      { scope: "row", slot: of("loss"), index: row, value: make.binary("sub", total, chosen) },
    ],
  };
}

/** Losses, logsumexp and the logits' gradient: the exponentials are kept where the logits were, so that each is computed once. */
function lossAndGradientLoops(softmax: Softmax): LoopKernel[] {
  const { of, logits, rows, classes } = softmax;
  const loop = { kind: "loop", outer: [rows], inner: classes } as const;
  const exponentials = (): LoopKernel => {
    const make = new ExprMakers();
    const { row, at, logit, ifLabel } = terms(make, softmax);
    const [largest, chosen] = [0, 1].map((index) => make.accumulator("f32", index)) as [Expr, Expr];
    return {
      ...loop,
      reductions: [
        { combine: "max", value: logit },
        { combine: "sum", value: ifLabel },
      ],
      stores: [
        { scope: "row", slot: softmax.largest, index: row, value: largest },
        { scope: "row", slot: softmax.chosen, index: row, value: chosen },
        { scope: "element", slot: logits, index: at, value: make.unary("exp", make.binary("sub", logit, largest)) },
      ],
    };
  };
  const make = new ExprMakers();
  const { row, at, logit: exponential, gradient } = terms(make, softmax);
  const sum = make.accumulator("f32", 0);
  const total = make.binary("add", make.unary("log", sum), make.load("f32", softmax.largest, row));
  const loss = make.binary("sub", total, make.load("f32", softmax.chosen, row));
  const scale = make.binary("div", make.constant("f32", 1), sum);
  return [
    exponentials(),
    {
      ...loop,
      reductions: [{ combine: "sum", value: exponential }],
      stores: [
        { scope: "row", slot: of("total"), index: row, value: total },
        { scope: "row", slot: of("loss"), index: row, value: loss },
        { scope: "element", slot: logits, index: at, value: gradient(make.binary("mul", exponential, scale)) },
      ],
    },
  ];
}
