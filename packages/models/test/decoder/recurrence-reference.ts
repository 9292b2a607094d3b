/** Recurrences token by token in float64, and numbers to feed them. */

/** Deterministic numbers between −1 and 1. */
export function numbers(count: number, seed: number): Float64Array {
  let state = (seed * 2654435761) >>> 0;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.fround(state / 2 ** 31 - 1);
  });
}

/** Sizes of a recurrence with one batch row and `heads` heads. */
export interface Sizes {
  readonly heads: number;
  readonly tokens: number;
  readonly keyDim: number;
  readonly valueDim: number;
}

/** Inputs as flat arrays [heads, tokens, dim]; decay and beta [heads, tokens]. */
export interface Inputs {
  readonly queries: Float64Array;
  readonly keys: Float64Array;
  readonly values: Float64Array;
  readonly decay: Float64Array;
  readonly beta: Float64Array;
  /** [heads, keyDim, valueDim]. */
  readonly state: Float64Array;
}

/** Inputs as a model makes them: keys of length 1, decays at most 0, beta between 0 and 1. `likeness` makes the keys alike. */
export function inputsOf({ heads, tokens, keyDim, valueDim }: Sizes, likeness = 0): Inputs {
  const keys = numbers(heads * tokens * keyDim, 2).map((x) => x * (1 - likeness) + likeness);
  for (let row = 0; row < heads * tokens; row++) {
    let sum = 0;
    for (let i = 0; i < keyDim; i++) sum += (keys[row * keyDim + i] ?? 0) ** 2;
    for (let i = 0; i < keyDim; i++) keys[row * keyDim + i] = Math.fround((keys[row * keyDim + i] ?? 0) / Math.sqrt(sum));
  }
  return {
    queries: numbers(heads * tokens * keyDim, 1),
    keys,
    values: numbers(heads * tokens * valueDim, 3),
    decay: numbers(heads * tokens, 4).map((x) => Math.fround(-Math.abs(x) * 0.4)),
    beta: numbers(heads * tokens, 5).map((x) => Math.fround((x + 1) / 2)),
    state: numbers(heads * keyDim * valueDim, 6),
  };
}

/** Outputs [heads, tokens, valueDim] and last state. `isDelta`: what is written is a difference to what is there; `begins`: tokens at which a row begins. */
export function recur(sizes: Sizes, inputs: Inputs, isDelta: boolean, begins: ReadonlySet<number> = new Set()): Float64Array[] {
  const { heads, tokens, keyDim, valueDim } = sizes;
  const output = new Float64Array(heads * tokens * valueDim);
  const state = Float64Array.from(inputs.state);
  for (let head = 0; head < heads; head++) {
    const s = state.subarray(head * keyDim * valueDim, (head + 1) * keyDim * valueDim);
    for (let token = 0; token < tokens; token++) {
      if (begins.has(token)) s.fill(0);
      const at = head * tokens + token;
      const remaining = Math.exp(inputs.decay[at] ?? 0);
      for (let v = 0; v < valueDim; v++) {
        let known = 0;
        for (let k = 0; k < keyDim; k++) {
          s[k * valueDim + v] = (s[k * valueDim + v] ?? 0) * remaining;
          known += (s[k * valueDim + v] ?? 0) * (inputs.keys[at * keyDim + k] ?? 0);
        }
        const value = inputs.values[at * valueDim + v] ?? 0;
        const written = isDelta ? (value - known) * (inputs.beta[at] ?? 0) : value;
        let sum = 0;
        for (let k = 0; k < keyDim; k++) {
          s[k * valueDim + v] = (s[k * valueDim + v] ?? 0) + (inputs.keys[at * keyDim + k] ?? 0) * written;
          sum += (s[k * valueDim + v] ?? 0) * (inputs.queries[at * keyDim + k] ?? 0);
        }
        output[at * valueDim + v] = sum;
      }
    }
  }
  return [output, state];
}
