/** The share of normal numbers below x, by erf's power series. */
export function normalShare(x: number): number {
  let [term, sum] = [x, x];
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum) && n < 500; n++) {
    term *= (x * x) / (2 * n + 1);
    sum += term;
  }
  return 0.5 + (sum * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
}

/** The number below which a normal number lies with probability p, in (0, 1): Newton's method. */
export function normalQuantile(p: number): number {
  let x = 0;
  for (let step = 0; step < 60; step++) {
    const change = (normalShare(x) - p) * Math.sqrt(2 * Math.PI) * Math.exp((x * x) / 2);
    x -= Math.max(-1, Math.min(1, change));
    if (Math.abs(change) < 1e-14) break;
  }
  return x;
}
