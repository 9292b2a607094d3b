import { largest, smallest } from "@lowrank/tensor";
import type { ScaleRow } from "../steps/scale.js";
import { figure } from "./terminal.js";

/** A panel's place on the sheet, in pixels. */
const panel = { width: 250, height: 170, left: 46, right: 52, top: 34, bottom: 34 };
const columns = 3;

const colors = { time: "#1f6feb", memory: "#bf5f00" };

/** One measured quantity along a sweep. */
interface Series {
  readonly color: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

/** The sweeps as an SVG sheet: one panel each, both axes logarithmic, milliseconds on the left and megabytes on the right. */
export function scaleSheet(rows: readonly ScaleRow[]): string {
  const sweeps = [...new Set(rows.map(({ sweep }) => sweep))];
  const [width, height] = [columns * panel.width, Math.ceil(sweeps.length / columns) * panel.height + 24];
  const panels = sweeps.map((sweep, i) => {
    const own = rows.filter((row) => row.sweep === sweep);
    const at = `translate(${(i % columns) * panel.width} ${Math.floor(i / columns) * panel.height})`;
    return `<g transform="${at}">${panelOf(sweep, own)}</g>`;
  });
  const legend = `<text x="46" y="${height - 8}" fill="${colors.time}">milliseconds a step (left)</text><text x="240" y="${height - 8}" fill="${colors.memory}">peak megabytes (right)</text>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="11" role="img"><title>How the time and memory of a LoRA step grow</title><rect width="${width}" height="${height}" fill="#fff"/>${panels.join("")}${legend}</svg>\n`;
}

function panelOf(sweep: string, rows: readonly ScaleRow[]): string {
  const x = scale(
    rows.map(({ value }) => value),
    panel.left,
    panel.width - panel.right,
  );
  const lines = [
    { color: colors.time, points: rows.map(({ value, seconds }) => ({ x: value, y: seconds * 1000 })), side: "left" },
    { color: colors.memory, points: rows.map(({ value, peakBytes }) => ({ x: value, y: peakBytes / 1e6 })), side: "right" },
  ] as const;
  const ticks = rows
    .map(
      ({ value }) =>
        `<text x="${place(x(value))}" y="${panel.height - panel.bottom + 14}" text-anchor="middle" fill="#555">${short(value)}</text>`,
    )
    .join("");
  const frame = `<path d="M${panel.left} ${panel.top}V${panel.height - panel.bottom}H${panel.width - panel.right}V${panel.top}" fill="none" stroke="#bbb"/>`;
  const title = `<text x="${panel.left}" y="18" font-weight="600" fill="#222">${sweep}</text>`;
  return title + frame + ticks + lines.map((line) => lineOf(line, x, line.side)).join("");
}

function lineOf({ color, points }: Series, x: (value: number) => number, side: "left" | "right"): string {
  const values = points.map((point) => point.y);
  const y = scale(values, panel.height - panel.bottom - 6, panel.top + 6);
  const path = points.map((point, i) => `${i === 0 ? "M" : "L"}${place(x(point.x))} ${place(y(point.y))}`).join("");
  const dots = points.map((point) => `<circle cx="${place(x(point.x))}" cy="${place(y(point.y))}" r="2.5" fill="${color}"/>`).join("");
  const ends = [smallest(values), largest(values)];
  const labels = ends
    .filter((value, i) => i === 0 || y(value) !== y(ends[0] ?? value))
    .map((value) => {
      const [at, anchor] = side === "left" ? [panel.left - 5, "end"] : [panel.width - panel.right + 5, "start"];
      return `<text x="${at}" y="${place(y(value) + 4)}" text-anchor="${anchor}" fill="${color}">${figure(value)}</text>`;
    })
    .join("");
  return `<path d="${path}" fill="none" stroke="${color}" stroke-width="1.5"/>${dots}${labels}`;
}

/** Values whose largest exceeds the smallest by less are drawn as one: an axis between them would show noise. */
const leastGrowth = 1.02;

/** A logarithmic axis from the smallest to the largest value; all at the middle where they do not grow. */
function scale(values: readonly number[], from: number, to: number): (value: number) => number {
  const [low, high] = [smallest(values), largest(values)];
  const isFlat = high < low * leastGrowth;
  return (value) => (isFlat ? (from + to) / 2 : from + ((to - from) * Math.log(value / low)) / Math.log(high / low));
}

function place(value: number): string {
  return value.toFixed(1);
}

/** 131072 → "128k". */
function short(value: number): string {
  return value >= 1024 && value % 1024 === 0 ? `${value / 1024}k` : String(value);
}
