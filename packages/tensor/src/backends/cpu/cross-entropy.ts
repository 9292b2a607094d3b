import { type Expr, ExprMakers } from "../../kernels/expr.js";
import type { CompositeKernel, LoopKernel, MatmulKernel, MatrixView, Slot } from "../../kernels/kernel.js";
import { ignoredLabel } from "../../ops/cross-entropy.js";
import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import type { KernelLibrary } from "./library.js";
import { loopSteps } from "./loop.js";
import { matmulSteps } from "./matmul.js";
import { movedSteps } from "./move.js";
import type { Step, StepList, Word } from "./steps.js";

/**
 * Linear cross-entropy by chunks of rows (Hsu et al. 2024, "Liger Kernel"; Wijmans et al. 2024, "Cut Your Losses"): the logits of a chunk
 * are computed into scratch memory, turned there into losses and into their own gradient, multiplied by the weight, and forgotten.
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

export function supportsCrossEntropy(kernel: CompositeKernel): boolean {
  return kernel.name in composites && kernel.inputShapes.every((shape) => sizeOf(shape) > 0);
}

/** The steps of `linearCrossEntropy`, its gradient, or both in one; slots from `slotCount` on are its own. */
export function crossEntropySteps(
  kernel: CompositeKernel,
  slotCount: number,
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
): StepList {
  const roles = composites[kernel.name];
  if (!roles) throw new Error(`cpu: no kernel for composite ${kernel.name}. Ask supports() first.`);
  const given = new Map<Role, Slot>();
  for (const [i, slot] of kernel.inputs.entries()) given.set(roles.inputs[i] as Role, slot);
  for (const [i, slot] of kernel.outputs.entries()) given.set(roles.outputs[i] as Role, slot);
  const [[rows = 0, width = 0] = [], [classes = 0] = []] = kernel.inputShapes;
  const chunks = Math.ceil(rows / Math.max(leastRows, Math.floor(chunkBytes / 4 / classes)));
  const chunkRows = Math.ceil(rows / chunks / 4) * 4;

  // Slots of the steps' own: the chunk's part of each operand that has rows, and in scratch memory the logits, of each row the largest,
  // and the label's.
  const own = new Map<Role, Slot>();
  for (const role of ["hidden", "labels", "total", "dLoss", "loss", "dHidden"] as const)
    if (given.has(role)) own.set(role, slotCount + own.size);
  const logits = slotCount + own.size;
  const [largest, chosen, slotEnd] = [logits + 1, logits + 2, logits + 3];
  const dtypes = new Map([...own].map(([role, slot]) => [slot, dtypeOf(given.get(role) as Slot)]));
  const typeOf = (slot: Slot): DType => (slot >= logits ? "f32" : (dtypes.get(slot) ?? dtypeOf(slot)));
  const of = (role: Role): Slot => own.get(role) ?? (given.get(role) as Slot);

  const logitsBytes = chunkRows * classes * 4;
  const rowsBytes = Math.ceil(chunkRows / 16) * 64;
  const ownBytes = logitsBytes + 2 * rowsBytes;
  const classesAtOnce = Math.max(classStep, Math.floor(packedBytes / 4 / width / classStep) * classStep);
  const steps: Step[] = [];
  let scratchBytes = 0;
  for (let row = 0; row < rows; row += chunkRows) {
    const count = Math.min(chunkRows, rows - row);
    const places = new Map<Slot, Word>(
      [logits, largest, chosen].map((slot, i) => [slot, { kind: "scratch", offset: [0, logitsBytes, logitsBytes + rowsBytes][i] ?? 0 }]),
    );
    for (const [role, slot] of own) {
      const rowBytes = dtypeBytes[typeOf(slot)] * (role === "hidden" || role === "dHidden" ? width : 1);
      places.set(slot, { kind: "slot", slot: given.get(role) as Slot, byteOffset: row * rowBytes });
    }
    const add = (list: StepList): void => {
      scratchBytes = Math.max(scratchBytes, list.scratchBytes);
      for (const step of movedSteps(list.steps, (word) => {
        if (word.kind === "scratch") return { kind: "scratch", offset: ownBytes + word.offset };
        return word.kind === "slot" ? (places.get(word.slot) ?? word) : word;
      }))
        steps.push(step);
    };
    const multiply = (sizes: Sizes, a: MatrixView, b: MatrixView, out: Slot, adds: boolean): void => {
      const product: MatmulKernel = { kind: "matmul", batch: [], ...sizes, a, b, out };
      add(matmulSteps(product, typeOf, library, adds));
    };
    const hidden = view(of("hidden"), width, 1);
    multiply({ m: count, n: classes, k: width }, hidden, view(of("weight"), 1, width), logits, false);
    const softmax = { of, own, logits, largest, chosen, rows: count, classes };
    for (const kernel of own.has("loss") && own.has("dHidden") ? lossAndGradientLoops(softmax) : [lossLoop(softmax)])
      add(loopSteps(kernel, slotEnd, typeOf, library));
    for (let first = 0; own.has("dHidden") && first < classes; first += classesAtOnce) {
      const sizes = { m: count, n: width, k: Math.min(classesAtOnce, classes - first) };
      multiply(sizes, view(logits, classes, 1, first), view(of("weight"), width, 1, first * width), of("dHidden"), first > 0);
    }
    if (given.has("dWeight")) multiply({ m: classes, n: width, k: count }, view(logits, 1, classes), hidden, of("dWeight"), row > 0);
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
}

/** The expressions that the loops share. */
function terms(make: ExprMakers, { of, own, logits, rows, classes }: Softmax) {
  const row = make.variable(0, rows);
  const column = make.variable(1, classes);
  const at = make.add(make.mul(row, make.int(classes)), column);
  const label = make.load("i32", of("labels"), row);
  const zero = make.constant("f32", 0);
  const isCounted = make.unary("not", make.binary("eq", label, make.int(ignoredLabel)));
  const isLabel = make.binary("eq", column, label);
  const ifCounted = (x: Expr): Expr => make.select(isCounted, x, zero);
  const logit = make.load("f32", logits, at);
  const share = own.has("dHidden") ? ifCounted(make.load("f32", of("dLoss"), row)) : zero;
  return {
    row,
    at,
    logit,
    ifCounted,
    ifLabel: make.select(isLabel, logit, zero),
    /** (softmax − onehot) · dLoss. */
    gradient: (probability: Expr): Expr => make.mul(make.binary("sub", probability, make.cast("f32", isLabel)), share),
  };
}

/** The losses and their logsumexp, or from logsumexp the logits' own gradient in their place. */
function lossLoop(softmax: Softmax): LoopKernel {
  const make = new ExprMakers();
  const { of, own, logits, rows, classes } = softmax;
  const { row, at, logit, ifCounted, ifLabel, gradient } = terms(make, softmax);
  const loop = { kind: "loop", outer: [rows], inner: classes } as const;
  if (!own.has("loss")) {
    const probability = make.unary("exp", make.binary("sub", logit, make.load("f32", of("total"), row)));
    return { ...loop, reductions: [], stores: [{ scope: "element", slot: logits, index: at, value: gradient(probability) }] };
  }
  const [largest, sum, chosen] = [0, 1, 2].map((index) => make.accumulator("f32", index)) as [Expr, Expr, Expr];
  const total = make.add(make.unary("log", sum), largest);
  return {
    ...loop,
    reductions: [
      { combine: "max", value: logit },
      { combine: "sum", value: make.unary("exp", make.binary("sub", logit, largest)) },
      { combine: "sum", value: ifLabel },
    ],
    stores: [
      { scope: "row", slot: of("total"), index: row, value: total },
      { scope: "row", slot: of("loss"), index: row, value: ifCounted(make.binary("sub", total, chosen)) },
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
  const { row, at, logit: exponential, ifCounted, gradient } = terms(make, softmax);
  const sum = make.accumulator("f32", 0);
  const total = make.add(make.unary("log", sum), make.load("f32", softmax.largest, row));
  const loss = make.binary("sub", total, make.load("f32", softmax.chosen, row));
  const scale = make.binary("div", make.constant("f32", 1), sum);
  return [
    exponentials(),
    {
      ...loop,
      reductions: [{ combine: "sum", value: exponential }],
      stores: [
        { scope: "row", slot: of("total"), index: row, value: total },
        { scope: "row", slot: of("loss"), index: row, value: ifCounted(loss) },
        { scope: "element", slot: logits, index: at, value: gradient(make.mul(exponential, scale)) },
      ],
    },
  ];
}
