import { type Bar, type Limit, type Outcome, verdict } from "../bars/bar.js";
import type { CaseResult } from "../families/measure.js";
import type { Roofline } from "../roofline/index.js";
import type { ScaleRow } from "../steps/scale.js";

/** Columns that a line may take. */
export const columns = 80;

/** A measured value as people read it: three figures, whole numbers as they are. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 0.1 ? 2 : 4;
  return value.toFixed(digits);
}

/** What a limit asks for, its sign apart. */
function bound(limit: Limit): readonly [sign: string, text: string] {
  if ("near" in limit) return limit.within === 0 ? ["=", String(limit.near)] : ["", `${limit.near}±${limit.within}`];
  const unit = limit.unit === "x" ? "x" : "";
  if ("atLeast" in limit) return ["≥", limit.atLeast + unit];
  if ("atMost" in limit) return ["≤", limit.atMost + unit];
  return ["<", limit.below + unit];
}

/** Limits as people read them: `≥ 1.8x`; several that are alike share a sign: `≤ 0.75/0.55/0.01`. */
export function required(limits: readonly Limit[]): string {
  const bounds = limits.map(bound);
  const signs = new Set(bounds.map(([sign]) => sign));
  const texts = bounds.map(([, text]) => text);
  const [sign] = bounds[0] ?? [""];
  if (signs.size > 1) return bounds.map(([each, text]) => `${each}${text}`).join(" ");
  return `${sign} ${(new Set(texts).size === 1 ? texts.slice(0, 1) : texts).join("/")}`.trim();
}

/** Measured values in a row. */
export function measured(outcome: Outcome): string {
  return "skipped" in outcome ? "-" : outcome.values.map(figure).join("/");
}

/** The head of the table of bars. */
export const barHead: readonly string[] = [barRow("bar", "measured", "required", ""), "─".repeat(columns)];

function barRow(name: string, value: string, limit: string, word: string): string {
  return `${name.padEnd(34)} ${value.padEnd(18)} ${limit.padEnd(17)} ${word}`.trimEnd();
}

/** A bar's one line: name, measured, required, verdict. */
export function barLine(bar: Bar, outcome: Outcome): string {
  return barRow(bar.brief, measured(outcome), required(bar.limits), verdict(bar, outcome));
}

/** The head of the table of growing sizes. */
export const scaleHead: readonly string[] = [scaleColumns("what grows", "to", "ms a step", "peak MB"), "─".repeat(columns)];

function scaleColumns(sweep: string, value: string, ms: string, megabytes: string): string {
  return `${sweep.padEnd(20)} ${value.padStart(10)} ${ms.padStart(14)} ${megabytes.padStart(14)}`;
}

/** One size's line. */
export function scaleLine({ sweep, value, seconds, peakBytes }: ScaleRow): string {
  return scaleColumns(sweep, String(value), figure(seconds * 1000), figure(peakBytes / 1e6));
}

/** What lies behind a bar's values, or why there are none. */
export function barDetail(bar: Bar, outcome: Outcome): string[] {
  const text = "skipped" in outcome ? `skipped: ${outcome.skipped}` : outcome.detail;
  return wrapped(`${bar.name}: ${text}`, 2).map((line, i) => (i === 0 ? line.slice(2) : line));
}

/** Text in lines of at most 80 columns, indented. */
export function wrapped(text: string, indent: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line !== "" && indent + line.length + 1 + word.length > columns) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  if (line !== "") lines.push(line);
  return lines.map((each) => " ".repeat(indent) + each);
}

/** The roofline's two lines. */
export function rooflineLines({ peak, bandwidth }: Roofline): string[] {
  return [
    `peak       ${figure(peak.gflops).padStart(7)} GFLOP/s   ${peak.detail}`,
    `bandwidth  ${figure(bandwidth.gbps).padStart(7)} GB/s      ${bandwidth.detail}`,
  ];
}

const shortNames: Readonly<Record<string, string>> = {
  "tfjs-wasm": "tfjs",
  "tfjs-webgpu": "tfjs",
  "jax-wasm": "jax",
  "jax-webgpu": "jax",
  "onnx-wasm": "onnx",
  pytorch: "torch",
};

/** The head of a family's table; peers get a column each. */
export function familyHead(family: string, peers: readonly string[]): string[] {
  const head = [
    family.padEnd(nameWidth(peers)),
    ...["µs", "± %", "GFLOP/s", "GB/s", "share"].map((text, i) => text.padStart(widths[i] ?? 0)),
  ];
  const names = peers.map((name) => (shortNames[name] ?? name).padStart(peerWidth));
  const line = [...head, ...names].join(" ");
  return [line, "─".repeat([...line].length)];
}

const widths = [9, 4, 7, 6, 5];
const peerWidth = 5;

function nameWidth(peers: readonly string[]): number {
  return columns - widths.reduce((sum, width) => sum + width + 1, 0) - peers.length * (peerWidth + 1);
}

/** A case's line: median, half of the quartiles' distance, rates, share of the roofline, and how many times faster than each peer. */
export function caseLine(result: CaseResult, peers: readonly string[]): string {
  const { timing, gflops, gbps, share } = result;
  const name = result.name.length > nameWidth(peers) ? `${result.name.slice(0, nameWidth(peers) - 1)}…` : result.name;
  const spread = ((timing.high - timing.low) / 2 / timing.median) * 100;
  const cells = [figure(timing.median * 1e6), spread.toFixed(0), gflops === 0 ? "" : figure(gflops), figure(gbps), share.toFixed(2)];
  const ratios = peers.map((peer) => {
    const found = result.peers[peer];
    return (found && "ratio" in found ? figure(found.ratio) : "-").padStart(peerWidth);
  });
  return [name.padEnd(nameWidth(peers)), ...cells.map((cell, i) => cell.padStart(widths[i] ?? 0)), ...ratios].join(" ").trimEnd();
}

/** Why peers took no part in cases, a line a reason. */
export function absenceLines(results: readonly CaseResult[]): string[] {
  const counts = new Map<string, number>();
  for (const { peers } of results) {
    for (const [name, found] of Object.entries(peers)) {
      if (!("skipped" in found)) continue;
      const reason = `${name}: ${found.skipped}`;
      counts.set(reason, (counts.get(reason) ?? 0) + 1);
    }
  }
  return [...counts].flatMap(([reason, count]) => wrapped(`- ${reason}${count > 1 ? ` (${count} cases)` : ""}`, 2));
}
