import { largest, smallest } from "@lowrank/tensor";
/** Points of one curve. */
export interface Point {
  readonly x: number;
  readonly y: number;
}

/**
 * A curve in characters, `height` lines plus an axis, at most `columns` wide: every column is the mean of the points that fall into it.
 * Empty for fewer than two points.
 */
export function plotLines(
  points: readonly Point[],
  { columns = 78, height = 8, label = "loss" }: { readonly columns?: number; readonly height?: number; readonly label?: string } = {},
): string[] {
  const finite = points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y));
  const first = finite[0];
  const last = finite.at(-1);
  if (!first || !last || first.x === last.x) return [];
  const gutter = 8;
  const width = Math.min(columns - gutter - 2, 64);
  const sums = new Float64Array(width);
  const counts = new Uint32Array(width);
  for (const { x, y } of finite) {
    const column = Math.min(width - 1, Math.floor(((x - first.x) / (last.x - first.x)) * width));
    sums[column] = (sums[column] ?? 0) + y;
    counts[column] = (counts[column] ?? 0) + 1;
  }
  // Columns without a point of their own lie on the line between their neighbours.
  const known = Array.from(sums, (sum, i) => ({ i, y: sum / (counts[i] ?? 1) })).filter(({ i }) => (counts[i] ?? 0) > 0);
  const means = Array.from({ length: width }, (_, i) => {
    const right = known.find((k) => k.i >= i) ?? known.at(-1);
    const left = known.findLast((k) => k.i <= i) ?? known[0];
    if (!left || !right || left.i === right.i) return left?.y ?? 0;
    return left.y + ((right.y - left.y) * (i - left.i)) / (right.i - left.i);
  });
  const low = smallest(means);
  const high = largest(means);
  const span = high - low || 1;
  const eighths = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
  const lines = Array.from({ length: height }, (_, row) => {
    const level = height - 1 - row;
    const cells = means.map((y) => {
      const filled = ((y - low) / span) * (height * 8 - 1) + 1 - level * 8;
      return eighths[Math.max(0, Math.min(8, Math.round(filled)))] ?? " ";
    });
    const mark = row === 0 ? high.toFixed(3) : row === height - 1 ? low.toFixed(3) : "";
    return `${mark.padStart(gutter - 1)} │${cells.join("")}`;
  });
  const ends = `${label}, step ${first.x}`.padEnd(width - String(last.x).length);
  return [...lines, `${" ".repeat(gutter)}└${"─".repeat(width)}`, `${" ".repeat(gutter + 1)}${ends}${last.x}`];
}
