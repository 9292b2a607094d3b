let mayRound = false;

/**
 * Records `fn`, in whose products with weights in blocks a backend may round what is multiplied with them, for each row and block of the weight, to
 * integers of 16 bits times a scale: what is lost is half of the last of 16 bits of the row's largest magnitude in the block. The cpu does so where
 * groups of a weight's integers share a factor (Q4_0, Q8_0, Q4_1 and others); for inference, since gradients know nothing of it. Returns what `fn` does.
 */
export function roundedActivations<T>(fn: () => T): T {
  const before = mayRound;
  mayRound = true;
  try {
    return fn();
  } finally {
    mayRound = before;
  }
}

/** What a product that is recorded now says of it. */
export function rounding(): { readonly isRounded?: true } {
  return mayRound ? { isRounded: true } : {};
}
