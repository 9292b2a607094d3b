/** log Σ exp of some logits, summed in float64. */
export function logSumExp(logits: ArrayLike<number>): number {
  let top = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) top = Math.max(top, logits[i] as number); // i < length
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] as number) - top); // likewise
  return top + Math.log(sum);
}

/** KL(softmax p ‖ softmax q) in nats, summed in float64, and the largest |p − q|. */
export function compareLogits(p: ArrayLike<number>, q: ArrayLike<number>): { readonly kl: number; readonly largest: number } {
  const [own, other] = [logSumExp(p), logSumExp(q)];
  let [kl, largest] = [0, 0];
  for (let i = 0; i < p.length; i++) {
    const [a, b] = [p[i] as number, q[i] as number]; // both have a logit a token
    kl += Math.exp(a - own) * (a - own - (b - other));
    largest = Math.max(largest, Math.abs(a - b));
  }
  return { kl: Math.max(0, kl), largest };
}
