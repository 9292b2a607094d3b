import type { LoopKernel, Slot } from "../../kernels/kernel.js";
import { describeLoop } from "../../kernels/wasm/describe.js";
import { printLoop, slotsOf } from "../../kernels/wasm/loop.js";
import { type LoopProgram, lowerLoop, type ScratchSlot } from "../../kernels/wasm/lower.js";
import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import type { KernelLibrary } from "./library.js";
import type { Step, StepList, Word } from "./steps.js";

/** Measured time of one cheap vector instruction, in nanoseconds. */
export const vectorNanoseconds = 0.4;

/** The steps of a loop kernel; `slotCount` is a number above those of all its slots. */
export function loopSteps(kernel: LoopKernel, slotCount: number, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList {
  const { programs, scratch } = lowerLoop(kernel, slotCount);
  const { offsets, bytes } = layOut(scratch);
  const dtypes = (slot: Slot): DType => scratch[slot - slotCount]?.dtype ?? dtypeOf(slot);
  const steps = programs.map((program): Step => {
    const entry = library.entry(describeLoop(program, dtypes), (module, scalarMath, name) =>
      printLoop(module, scalarMath, program, dtypes, name),
    );
    const words = slotsOf(program).map((slot): Word => {
      const offset = offsets.get(slot);
      return offset === undefined ? { kind: "slot", slot } : { kind: "scratch", offset };
    });
    const { outer } = program.kernel;
    const followsRows = program.chunk === null && outer.length <= 1 && program.vectorAxis === outer.length;
    return {
      entry,
      tiles: program.tileCount,
      words,
      cost: program.work * vectorNanoseconds,
      ...(followsRows && { tileRows: program.rowsPerTile }),
    };
  });
  return { steps, scratchBytes: bytes };
}

/** The step that computes some rows of a program whose arguments say which. */
export function rowsStep(
  program: LoopProgram,
  rows: { readonly first: number; readonly count: number; readonly all: number },
  wordOf: (slot: Slot) => Word,
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
): Step {
  const entry = library.entry(describeLoop(program, dtypeOf), (module, scalarMath, name) =>
    printLoop(module, scalarMath, program, dtypeOf, name),
  );
  return {
    entry,
    tiles: Math.ceil(rows.count / program.rowsPerTile),
    words: [...slotsOf(program).map(wordOf), rows.first, rows.first + rows.count],
    cost: (program.work * vectorNanoseconds * rows.count) / Math.max(rows.all, 1),
  };
}

function layOut(scratch: readonly ScratchSlot[]): { offsets: Map<Slot, number>; bytes: number } {
  const offsets = new Map<Slot, number>();
  let bytes = 0;
  for (const { slot, dtype, elementCount } of scratch) {
    offsets.set(slot, bytes);
    bytes += Math.ceil((elementCount * dtypeBytes[dtype]) / 64) * 64;
  }
  return { offsets, bytes };
}
