import { largest, smallest } from "@lowrank/tensor";
import { axisNumber, logTicks, ticks } from "./axis.js";
import { colorOf, escaped } from "./html.js";

/** One curve. */
export interface Series {
  readonly name: string;
  /** Its number in the palette. */
  readonly color: number;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

/** What a chart with two axes is called and how its axes run. */
export interface AxesOptions {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly isLogX?: boolean;
  readonly isLogY?: boolean;
  /** Dots at the points, as for curves over few values. */
  readonly hasDots?: boolean;
  /** No line between the points, and each curve's name beside its first. */
  readonly isScatter?: boolean;
  /** Only these marks on the x axis. */
  readonly xTicks?: readonly number[];
}

const n = (value: number): string => String(Math.round(value * 10) / 10);

function drawing(width: number, height: number, title: string, body: string): string {
  return `<svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(title)}"><title>${escaped(title)}</title>${body}</svg>`;
}

/** Where a value lies between two others, 0 to 1. */
function placing(low: number, high: number, isLog: boolean): (value: number) => number {
  const at = isLog ? Math.log10 : (value: number): number => value;
  const span = at(high) - at(low) || 1;
  return (value) => (at(value) - at(low)) / span;
}

function extent(values: readonly number[], isLog: boolean): [low: number, high: number] {
  const low = smallest(values);
  const high = largest(values);
  if (isLog) return low === high ? [low / 2, high * 2] : [low, high];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}

/** Curves or a scatter plot with axes, `width` x `height` pixels. */
export function lineChart(series: readonly Series[], options: AxesOptions, width: number, height: number): string {
  const { title, isLogX = false, isLogY = false, hasDots = false, isScatter = false } = options;
  const points = series.flatMap((curve) =>
    curve.points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y) && (!isLogX || x > 0) && (!isLogY || y > 0)),
  );
  if (points.length === 0) return drawing(width, 40, title, `<text x="8" y="24" class="mark">nothing to draw</text>`);
  const xs = points.map(({ x }) => x);
  const [xLow, xHigh] =
    isScatter && !isLogX ? extent(xs, false) : isLogX ? spread(extent(xs, true), isScatter ? 1.35 : 1) : [smallest(xs), largest(xs)];
  const [yLow, yHigh] = extent(
    points.map(({ y }) => y),
    isLogY,
  );
  const box = { left: 52, right: width - 14, top: 10, bottom: height - 40 };
  const atX = placing(xLow, xHigh, isLogX);
  const atY = placing(yLow, yHigh, isLogY);
  const px = (x: number): number => box.left + atX(x) * (box.right - box.left);
  const py = (y: number): number => box.bottom - atY(y) * (box.bottom - box.top);

  const yMarks = isLogY ? logTicks(yLow, yHigh) : ticks(yLow, yHigh, 5);
  const xMarks = options.xTicks ?? (isLogX ? logTicks(xLow, xHigh) : ticks(xLow, xHigh, width < 500 ? 4 : 8));
  const grid = [
    ...yMarks.map(
      (y) =>
        `<line class="grid" x1="${box.left}" x2="${box.right}" y1="${n(py(y))}" y2="${n(py(y))}"/><text class="mark end" x="${box.left - 6}" y="${n(py(y) + 4)}">${axisNumber(y)}</text>`,
    ),
    ...xMarks.map((x) => `<text class="mark mid" x="${n(px(x))}" y="${box.bottom + 16}">${axisNumber(x)}</text>`),
    `<line class="axis" x1="${box.left}" x2="${box.right}" y1="${box.bottom}" y2="${box.bottom}"/>`,
    `<text class="mark mid" x="${(box.left + box.right) / 2}" y="${height - 6}">${escaped(options.x)}</text>`,
    `<text class="mark mid" transform="translate(12 ${(box.top + box.bottom) / 2}) rotate(-90)">${escaped(options.y)}</text>`,
  ];
  const dotsAt = isScatter ? points.map(({ x, y }): Box => around([px(x), py(y)], dotRadius)) : [];
  const taken: Box[] = [...dotsAt];
  const curves = series.map(({ name, color, points: own }) => {
    const fit = own.filter((point) => points.includes(point)).map(({ x, y }) => [px(x), py(y)] as const);
    const line =
      isScatter || fit.length < 2
        ? ""
        : `<path class="curve" stroke="${colorOf(color)}" d="M${fit.map(([x, y]) => `${n(x)} ${n(y)}`).join("L")}"/>`;
    const dots =
      hasDots || isScatter || fit.length === 1
        ? fit.map(([x, y]) => `<circle cx="${n(x)}" cy="${n(y)}" r="${isScatter ? dotRadius : 3}" fill="${colorOf(color)}"/>`).join("")
        : "";
    const [first] = fit;
    return { marks: line + dots, label: isScatter && first ? pointLabel(name, first, box, dotsAt, taken) : "" };
  });
  // Labels lie above all dots and lines.
  const body = [...grid, ...curves.map(({ marks }) => marks), ...curves.map(({ label }) => label)];
  return drawing(width, height, title, body.join(""));
}

function spread([low, high]: readonly [number, number], factor: number): [number, number] {
  return [low / factor, high * factor];
}

/** Radius of a scatter plot's dots in pixels. */
const dotRadius = 5;

/** A rectangle that something covers. */
interface Box {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

function around([x, y]: readonly [number, number], radius: number): Box {
  return { left: x - radius, right: x + radius, top: y - radius, bottom: y + radius };
}

function overlap(a: Box, b: Box): boolean {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

const labelHeight = 13;

/** Pixels from a place to the middle of a dot. */
function distance(place: Box, dot: Box): number {
  const [x, y] = [(dot.left + dot.right) / 2, (dot.top + dot.bottom) / 2];
  return Math.hypot(Math.max(place.left - x, 0, x - place.right), Math.max(place.top - y, 0, y - place.bottom));
}

/**
 * A point's name in the free place nearest to it: beside it where no other dot is nearer to the name, else with a line to the point. Empty where all
 * is taken: the legend names the point as well.
 */
function pointLabel(name: string, [x, y]: readonly [number, number], box: Box, dots: readonly Box[], taken: Box[]): string {
  const width = name.length * 7;
  const beside = dotRadius + 4;
  const rows = [0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6];
  const places = rows.flatMap((row) => [
    { left: x + beside, top: y - labelHeight / 2 + row * labelHeight, row },
    { left: x - beside - width, top: y - labelHeight / 2 + row * labelHeight, row },
  ]);
  for (const { left, top, row } of places) {
    const place: Box = { left, right: left + width, top, bottom: top + labelHeight };
    const isInside = place.left >= box.left && place.right <= box.right + 10 && place.top >= box.top - 4 && place.bottom <= box.bottom;
    if (!isInside || taken.some((other) => overlap(place, other))) continue;
    const own = distance(place, around([x, y], dotRadius));
    if (row === 0 && dots.some((dot) => distance(place, dot) < own - 0.01)) continue;
    taken.push(place);
    const isRight = left > x;
    const [near, middle] = [isRight ? left - 2 : place.right + 2, top + labelHeight / 2];
    const leader = row === 0 ? "" : `<line class="leader" x1="${n(x)}" y1="${n(y)}" x2="${n(near)}" y2="${n(middle)}"/>`;
    return `${leader}<text class="name${isRight ? "" : " end"}" x="${n(isRight ? left : place.right)}" y="${n(middle + 4)}">${escaped(name)}</text>`;
  }
  return "";
}

/** The names of curves with their colours. */
export function legend(series: readonly Pick<Series, "name" | "color">[]): string {
  return `<ul class="legend">${series.map(({ name, color }) => `<li><i style="background:${colorOf(color)}"></i>${escaped(name)}</li>`).join("")}</ul>`;
}

/** A bar: `text` is the value as people read it. */
export interface Bar {
  readonly label: string;
  readonly value: number | null;
  readonly text: string;
  readonly color: number;
}

/** Lying bars, 320 pixels wide; `reference` is a value that all are to be compared with, drawn as a line. */
export function barChart(title: string, bars: readonly Bar[], reference?: number): string {
  const width = 320;
  const rowHeight = 24;
  const labelWidth = Math.min(
    104,
    12 +
      7 *
        largest(
          bars.map(({ label }) => label.length),
          3,
        ),
  );
  const textWidth =
    10 +
    7 *
      largest(
        bars.map(({ text }) => text.length),
        3,
      );
  const values = bars.flatMap(({ value }) => (value === null || !Number.isFinite(value) ? [] : [value]));
  const low = smallest(values, 0);
  const high = largest(values, Math.max(0, reference ?? 0));
  const room = width - labelWidth - textWidth;
  const at = (value: number): number => labelWidth + ((value - low) / (high - low || 1)) * room;
  const rows = bars.map(({ label, value, text, color }, i) => {
    const y = i * rowHeight;
    const name = `<text class="name" x="0" y="${y + 16}">${escaped(label)}</text>`;
    if (value === null || !Number.isFinite(value))
      return { bar: name, label: `<text class="mark" x="${labelWidth}" y="${y + 16}">${escaped(text)}</text>` };
    const [start, end] = value < 0 ? [at(value), at(0)] : [at(0), at(value)];
    const bar = `<rect x="${n(start)}" y="${y + 5}" width="${n(Math.max(1, end - start))}" height="14" rx="2" fill="${colorOf(color)}"/>`;
    return { bar: name + bar, label: `<text class="mark" x="${n(end + 6)}" y="${y + 16}">${escaped(text)}</text>` };
  });
  const height = bars.length * rowHeight;
  const line =
    reference === undefined ? "" : `<line class="reference" x1="${n(at(reference))}" x2="${n(at(reference))}" y1="0" y2="${height}"/>`;
  // Figures lie above the reference line, which would cross them out.
  return drawing(width, height, title, [...rows.map(({ bar }) => bar), line, ...rows.map(({ label }) => label)].join(""));
}

/** A share of a whole as a ring with its figure in the middle, 120 pixels wide. */
export function donut(title: string, share: number, text: string, color: number): string {
  const radius = 44;
  const around = 2 * Math.PI * radius;
  const part = Math.max(0, Math.min(1, share)) * around;
  // A share below one percent would be invisible; it is drawn as a hair.
  const drawn = share > 0 ? Math.max(part, 1.5) : 0;
  return drawing(
    120,
    120,
    title,
    `<circle class="ring" cx="60" cy="60" r="${radius}"/><circle class="part" cx="60" cy="60" r="${radius}" stroke="${colorOf(color)}" stroke-dasharray="${n(drawn)} ${n(around)}" transform="rotate(-90 60 60)"/><text class="figure mid" x="60" y="65">${escaped(text)}</text>`,
  );
}

/** Values from 0 to 1 as a grid of squares, the first row below as in a plot; `rows` and `columns` are the marks. */
export function heatMap(
  title: string,
  values: readonly (readonly number[])[],
  marks: { readonly rows: readonly number[]; readonly columns: readonly number[]; readonly x: string; readonly y: string },
): string {
  const width = 320;
  const [left, bottom] = [46, 40];
  const cell = Math.min(26, (width - left - 6) / Math.max(1, marks.columns.length));
  const bodyHeight = cell * marks.rows.length;
  const height = bodyHeight + bottom + 4;
  const cells = values.flatMap((row, r) =>
    row.map((value, c) => {
      const y = 4 + bodyHeight - (r + 1) * cell;
      const said = `${marks.y} ${marks.rows[r]}, ${marks.x} ${marks.columns[c]}: ${value.toFixed(2)}`;
      return `<rect class="cell" x="${n(left + c * cell)}" y="${n(y)}" width="${n(cell)}" height="${n(cell)}" fill-opacity="${Math.max(0, Math.min(1, value)).toFixed(2)}"><title>${escaped(said)}</title></rect>`;
    }),
  );
  const isWide = cell >= 18;
  const shown = (i: number, count: number): boolean => isWide || i % 2 === 0 || i === count - 1;
  const columnMarks = marks.columns.map((mark, c) =>
    shown(c, marks.columns.length)
      ? `<text class="mark mid" x="${n(left + (c + 0.5) * cell)}" y="${n(4 + bodyHeight + 15)}">${mark}</text>`
      : "",
  );
  const rowMarks = marks.rows.map((mark, r) =>
    shown(r, marks.rows.length)
      ? `<text class="mark end" x="${left - 6}" y="${n(4 + bodyHeight - (r + 0.5) * cell + 4)}">${mark}</text>`
      : "",
  );
  const names = `<text class="mark mid" x="${n(left + (cell * marks.columns.length) / 2)}" y="${n(height - 6)}">${escaped(marks.x)}</text><text class="mark mid" transform="translate(12 ${n(4 + bodyHeight / 2)}) rotate(-90)">${escaped(marks.y)}</text>`;
  const frame = `<rect class="frame" x="${left}" y="4" width="${n(cell * marks.columns.length)}" height="${n(bodyHeight)}"/>`;
  return drawing(width, height, title, cells.join("") + frame + columnMarks.join("") + rowMarks.join("") + names);
}
