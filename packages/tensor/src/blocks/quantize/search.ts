/** Sums of a group of numbers x and their codes q, by which a line through them is found. */
interface LineSums {
  readonly count: number;
  readonly x: number;
  readonly q: number;
  readonly qq: number;
  readonly qx: number;
}

/** The line x ≈ scale · q − min that errs least, with min ≥ 0. */
export interface Line {
  scale: number;
  min: number;
}

/** Finds scale and min by least squares; `gain` is what it takes off Σ x². */
function leastSquares({ count, x, q, qq, qx }: LineSums, line: Line): number {
  const determinant = count * qq - q * q;
  if (determinant > 0) {
    line.scale = (count * qx - x * q) / determinant;
    line.min = (q * qx - qq * x) / determinant;
    if (line.min >= 0 && line.scale > 0) return line.scale * qx - line.min * x;
  }
  line.min = 0;
  line.scale = qq > 0 ? Math.max(qx / qq, 0) : 0;
  return line.scale * qx;
}

const trial: Line = { scale: 0, min: 0 };

/** As `leastSquares`, of the codes that x has on a line. Leaves the better line in `trial`. */
function refit(values: Float32Array, from: number, count: number, mostCode: number, inverse: number, min: number): number {
  let [q, qq] = [0, 0];
  let [x, qx] = [0, 0];
  const offset = min * inverse + 0.5;
  for (let i = from; i < from + count; i++) {
    const value = values[i] as number; // the caller's block lies inside
    const nearest = (value * inverse + offset) | 0; // what is below 0 is cut off next
    const code = nearest < 0 ? 0 : nearest > mostCode ? mostCode : nearest;
    x += value;
    q += code;
    qq += code * code;
    qx += code * value;
  }
  return leastSquares({ count, x, q, qq, qx }, trial);
}

/** Ranges of codes that are tried, in codes beyond the largest: what is spread wider than its codes cuts outliers off. */
const spreads = [-0.9, -0.6, -0.3, 0, 0.3, 0.6, 0.9];
/** Times that the best line's own codes are fitted again. */
const rounds = 2;

/**
 * The line on which `count` numbers lie best when each has the nearest code 0 to `mostCode`: from several ranges, codes and least squares in turn
 * (Lloyd 1982). The squared error is what is minimized, every number alike.
 */
export function fitLine(values: Float32Array, from: number, count: number, mostCode: number, line: Line): void {
  let [low, high] = [0, Number.NEGATIVE_INFINITY];
  for (let i = from; i < from + count; i++) {
    const value = values[i] ?? 0;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  line.min = -low;
  line.scale = 0;
  if (!(high > low)) return;
  let best = Number.NEGATIVE_INFINITY;
  const keep = (gain: number): void => {
    if (!(gain > best)) return;
    best = gain;
    line.scale = trial.scale;
    line.min = trial.min;
  };
  for (const spread of spreads) keep(refit(values, from, count, mostCode, (mostCode + spread) / (high - low), -low));
  for (let round = 0; round < rounds && line.scale > 0; round++) keep(refit(values, from, count, mostCode, 1 / line.scale, line.min));
}

/** Ranges that are tried of symmetric codes, in codes beyond the half. */
const halfSpreads = [-0.9, -0.6, -0.3, 0, 0.3, 0.6, 0.9];

/**
 * The scale with which `count` numbers are best scale · q, q a whole number from −`half` to `half` − 1: of several, that of the least squared error.
 * Positive or negative.
 */
export function fitScale(values: Float32Array, from: number, count: number, half: number): number {
  let farthest = 0;
  for (let i = from; i < from + count; i++) if (Math.abs(values[i] ?? 0) > Math.abs(farthest)) farthest = values[i] ?? 0;
  if (farthest === 0) return 0;
  let [best, scale] = [0, 0];
  const tried = (inverse: number): void => {
    let [qq, qx] = [0, 0];
    for (let i = from; i < from + count; i++) {
      const value = values[i] ?? 0;
      const code = Math.min(Math.max(Math.floor(value * inverse + 0.5), -half), half - 1);
      qq += code * code;
      qx += code * value;
    }
    if (qq > 0 && qx * qx > best * qq) {
      best = (qx * qx) / qq;
      scale = qx / qq;
    }
  };
  for (const spread of halfSpreads) tried(-(half + spread) / farthest);
  if (scale !== 0) tried(1 / scale);
  return scale;
}
