import { dtypeBytes, largest, type Tensor } from "@lowrank/tensor";
import type { Adapter } from "./adapter.js";
import type { AdaptableModel } from "./targeting/model.js";

/** Numbers of f32 state that optimizers keep for each trained number. */
const stateCopies = { adamw: 2, sgd: 0, "sgd-momentum": 1 } as const;

/** An optimizer's kind, or one that says itself how many bytes its state takes. */
export type OptimizerKind = keyof typeof stateCopies | { readonly stateBytes: number };

/** What will be trained and what it takes, known before the first step. */
export interface ParameterReport {
  /** Numbers that training changes. */
  readonly trainable: number;
  /** Numbers that it does not. */
  readonly frozen: number;
  /** trainable / (trainable + frozen), in percent. */
  readonly trainablePercent: number;
  readonly weightBytes: { readonly trainable: number; readonly frozen: number };
  /** f32 gradients: of the trainable parameters only. */
  readonly gradientBytes: number;
  readonly optimizerBytes: number;
}

/**
 * Counts trained and frozen parameters, in numbers, percent, and bytes of weights, gradients and optimizer state. `trained` is an adapter
 * on the model, or "full" for full fine-tuning. peft's print_trainable_parameters, with the memory.
 */
export function parameterReport(model: AdaptableModel, trained: Adapter | "full", optimizer: OptimizerKind = "adamw"): ParameterReport {
  const base = [...model.namedParameters().values()];
  const trainedTensors = trained === "full" ? base : trained.parameters();
  const frozenTensors = trained === "full" ? [] : base;
  const trainable = count(trainedTensors);
  const frozen = count(frozenTensors);
  const gradientBytes = 4 * trainable;
  return {
    trainable,
    frozen,
    trainablePercent: (100 * trainable) / Math.max(1, trainable + frozen),
    weightBytes: { trainable: bytes(trainedTensors), frozen: bytes(frozenTensors) },
    gradientBytes,
    optimizerBytes: typeof optimizer === "string" ? stateCopies[optimizer] * 4 * trainable : optimizer.stateBytes,
  };
}

function count(tensors: readonly Tensor[]): number {
  return tensors.reduce((sum, { size }) => sum + size, 0);
}

function bytes(tensors: readonly Tensor[]): number {
  return tensors.reduce((sum, { size, dtype, packing }) => sum + (packing?.bytes ?? size * dtypeBytes[dtype]), 0);
}

/** The report's cells as text, a head first: counts, shares and bytes of what is trained and what is frozen. */
export function reportRows(report: ParameterReport): string[][] {
  const { trainable, frozen, trainablePercent: percent, weightBytes, gradientBytes, optimizerBytes } = report;
  return [
    ["", "parameters", "share", "weights", "gradients", "optimizer"],
    [
      "trained",
      grouped(trainable),
      `${percent.toFixed(2)} %`,
      inUnits(weightBytes.trainable),
      inUnits(gradientBytes),
      inUnits(optimizerBytes),
    ],
    ["frozen", grouped(frozen), `${(100 - percent).toFixed(2)} %`, inUnits(weightBytes.frozen), inUnits(0), inUnits(0)],
  ];
}

/** The report as a small table for a terminal. */
export function formatReport(report: ParameterReport): string {
  const rows = reportRows(report);
  const widths = (rows[0] ?? []).map((_, column) => largest(rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) => row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))).join("  "))
    .join("\n");
}

/** 1234567 → "1,234,567". */
function grouped(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Bytes in the largest unit below: "3.2 MB" (10^6). */
function inUnits(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  return `${power === 0 ? value : (value / 1000 ** power).toFixed(1)} ${units[power]}`;
}
