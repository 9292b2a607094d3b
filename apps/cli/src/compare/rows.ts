import { bytes, grouped } from "../terminal/format.js";
import type { MethodResult, Quality } from "./measure.js";

/** A column of the comparison: what it is called, its text and its number in a row. */
export interface Column {
  readonly name: string;
  /** The name where there is little room. */
  readonly short: string;
  readonly text: (result: MethodResult) => string;
  readonly value: (result: MethodResult) => number | null;
  /** Which end of the column is the good one; absent where there is none. */
  readonly best?: "low" | "high";
}

const ratio = (value: number | null): string => (value === null ? "–" : `${value.toFixed(2)}×`);

/** The columns of the comparison's table, in their order; the base's general loss is what forgetting is counted from. */
export function columnsFor(base: Quality): readonly Column[] {
  return [
    {
      name: "trainable parameters",
      short: "trained",
      text: ({ parameters }) => grouped(parameters.trainable),
      value: ({ parameters }) => parameters.trainable,
      best: "low",
    },
    {
      name: "share of all",
      short: "share",
      text: ({ parameters }) => percent(parameters.trainablePercent),
      value: ({ parameters }) => parameters.trainablePercent,
    },
    { name: "peak memory", short: "peak", text: ({ peakBytes }) => bytes(peakBytes), value: ({ peakBytes }) => peakBytes, best: "low" },
    {
      name: "optimizer state",
      short: "optim.",
      text: ({ parameters }) => bytes(parameters.optimizerBytes),
      value: ({ parameters }) => parameters.optimizerBytes,
      best: "low",
    },
    { name: "ms per step", short: "ms/step", text: ({ stepMs }) => figure(stepMs), value: ({ stepMs }) => stepMs, best: "low" },
    { name: "held-out loss", short: "loss", text: ({ evalLoss }) => evalLoss.toFixed(4), value: ({ evalLoss }) => evalLoss, best: "low" },
    {
      name: "exact match",
      short: "exact",
      text: ({ exactMatch }) => (exactMatch === null ? "–" : `${(100 * exactMatch).toFixed(1)} %`),
      value: ({ exactMatch }) => exactMatch,
      best: "high",
    },
    {
      name: "ms per token",
      short: "ms/tok",
      text: ({ decoding }) => figure(decoding.methodMs),
      value: ({ decoding }) => decoding.methodMs,
    },
    {
      name: "relative to the base",
      short: "vs base",
      text: ({ decoding }) => ratio(decoding.ratio),
      value: ({ decoding }) => decoding.ratio,
    },
    {
      name: "merged, relative to the base",
      short: "merged",
      text: ({ decoding }) => ratio(decoding.mergedRatio),
      value: ({ decoding }) => decoding.mergedRatio,
    },
    {
      name: "context positions",
      short: "ctx",
      text: ({ contextTokens }) => String(contextTokens),
      value: ({ contextTokens }) => contextTokens,
    },
    {
      name: "forgetting",
      short: "forgets",
      text: ({ generalLoss }) => signed(generalLoss - base.generalLoss),
      value: ({ generalLoss }) => generalLoss - base.generalLoss,
      best: "low",
    },
  ];
}

/** A share in percent with as many places as it needs to be told from 0. */
export function percent(value: number): string {
  return `${value >= 99.95 ? "100" : value >= 10 || value === 0 ? value.toFixed(1) : value >= 0.1 ? value.toFixed(2) : value.toPrecision(2)} %`;
}

/** A measured number with three significant digits. */
export function figure(value: number): string {
  return Number.isFinite(value) ? (value >= 100 ? value.toFixed(0) : value.toPrecision(3)) : "–";
}

/** A difference with its sign. */
export function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
}

/** The comparison's table for a terminal: its head, the base, then one row a method. */
export function terminalRows(base: Quality, results: readonly MethodResult[]): string[][] {
  const columns = columnsFor(base);
  return [
    ["method", ...columns.map(({ short }) => short)],
    baseRow(columns, base),
    ...results.map((result) => [result.method, ...columns.map(({ text }) => text(result))]),
  ];
}

/** The untrained model's row: of most columns it has nothing. */
export function baseRow(columns: readonly Column[], base: Quality): string[] {
  const known: Readonly<Record<string, string>> = {
    loss: base.evalLoss.toFixed(4),
    exact: base.exactMatch === null ? "–" : `${(100 * base.exactMatch).toFixed(1)} %`,
    trained: "0",
    share: "0 %",
    "vs base": "1.00×",
    ctx: "0",
    forgets: signed(0),
  };
  return ["base", ...columns.map(({ short }) => known[short] ?? "–")];
}
