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
const leastRows = 64;
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

  // Slots of the steps' own: the chunk's part of each operand that has rows, and the logits.
  const own = new Map<Role, Slot>();
  for (const role of ["hidden", "labels", "total", "dLoss", "loss", "dHidden"] as const)
    if (given.has(role)) own.set(role, slotCount + own.size);
  const logits = slotCount + own.size;
  const dtypes = new Map([...own].map(([role, slot]) => [slot, dtypeOf(given.get(role) as Slot)]));
  const typeOf = (slot: Slot): DType => (slot === logits ? "f32" : (dtypes.get(slot) ?? dtypeOf(slot)));
  const of = (role: Role): Slot => own.get(role) ?? (given.get(role) as Slot);

  const logitsBytes = chunkRows * classes * 4;
  const classesAtOnce = Math.max(classStep, Math.floor(packedBytes / 4 / width / classStep) * classStep);
  const steps: Step[] = [];
  let scratchBytes = 0;
  for (let row = 0; row < rows; row += chunkRows) {
    const count = Math.min(chunkRows, rows - row);
    const places = new Map<Slot, Word>([[logits, { kind: "scratch", offset: 0 }]]);
    for (const [role, slot] of own) {
      const rowBytes = dtypeBytes[typeOf(slot)] * (role === "hidden" || role === "dHidden" ? width : 1);
      places.set(slot, { kind: "slot", slot: given.get(role) as Slot, byteOffset: row * rowBytes });
    }
    const add = (list: StepList): void => {
      scratchBytes = Math.max(scratchBytes, list.scratchBytes);
      for (const step of movedSteps(list.steps, (word) => {
        if (word.kind === "scratch") return { kind: "scratch", offset: logitsBytes + word.offset };
        return word.kind === "slot" ? (places.get(word.slot) ?? word) : word;
      }))
        steps.push(step);
    };
    const multiply = (sizes: Sizes, a: MatrixView, b: MatrixView, out: Slot, adds: boolean): void => {
      const product: MatmulKernel = { kind: "matmul", batch: [], ...sizes, a, b, out, isFrozenB: false };
      add(matmulSteps(product, typeOf, library, adds));
    };
    const hidden = view(of("hidden"), width, 1);
    multiply({ m: count, n: classes, k: width }, hidden, view(of("weight"), 1, width), logits, false);
    add(loopSteps(lossLoop(of, own, logits, count, classes), logits + 1, typeOf, library));
    for (let first = 0; own.has("dHidden") && first < classes; first += classesAtOnce) {
      const sizes = { m: count, n: width, k: Math.min(classesAtOnce, classes - first) };
      multiply(sizes, view(logits, classes, 1, first), view(of("weight"), width, 1, first * width), of("dHidden"), first > 0);
    }
    if (given.has("dWeight")) multiply({ m: classes, n: width, k: count }, view(logits, 1, classes), hidden, of("dWeight"), row > 0);
  }
  return { steps, scratchBytes: logitsBytes + scratchBytes };
}

interface Sizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

function view(slot: Slot, rowStride: number, columnStride: number, offset: number = 0): MatrixView {
  return { slot, offset, batchStrides: [], rowStride, columnStride };
}

/** From logits [rows, classes] the losses and their logsumexp, where they are wanted, and the logits' own gradient in their place. */
function lossLoop(of: (role: Role) => Slot, own: ReadonlyMap<Role, Slot>, logits: Slot, rows: number, classes: number): LoopKernel {
  const make = new ExprMakers();
  const row = make.variable(0, rows);
  const column = make.variable(1, classes);
  const at = make.add(make.mul(row, make.int(classes)), column);
  const logit = make.load("f32", logits, at);
  const label = make.load("i32", of("labels"), row);
  const isLabel = make.binary("eq", column, label);
  const isCounted = make.unary("not", make.binary("eq", label, make.int(ignoredLabel)));
  const zero = make.constant("f32", 0);
  const reductions: LoopKernel["reductions"][number][] = [];
  const stores: LoopKernel["stores"][number][] = [];
  let total: Expr;
  if (own.has("loss")) {
    const [largest, sum, own] = [0, 1, 2].map((index) => make.accumulator("f32", index)) as [Expr, Expr, Expr];
    reductions.push(
      { combine: "max", value: logit },
      { combine: "sum", value: make.unary("exp", make.binary("sub", logit, largest)) },
      { combine: "sum", value: make.select(isLabel, logit, zero) },
    );
    total = make.add(make.unary("log", sum), largest);
    stores.push(
      { scope: "row", slot: of("total"), index: row, value: total },
      { scope: "row", slot: of("loss"), index: row, value: make.select(isCounted, make.binary("sub", total, own), zero) },
    );
  } else total = make.load("f32", of("total"), row);
  if (own.has("dHidden")) {
    const share = make.select(isCounted, make.load("f32", of("dLoss"), row), zero);
    const probability = make.unary("exp", make.binary("sub", logit, total));
    const value = make.mul(make.binary("sub", probability, make.cast("f32", isLabel)), share);
    stores.push({ scope: "element", slot: logits, index: at, value });
  }
  return { kind: "loop", outer: [rows], inner: classes, reductions, stores };
}
