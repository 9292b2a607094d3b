/** Words of the generator's state. */
const size = 624;

/**
 * The Mersenne Twister MT19937 (Matsumoto & Nishimura 1998), which is torch's generator on the CPU: a function that gives its next 32 bits.
 */
export function mersenneTwister(seed: number): () => number {
  const state = new Uint32Array(size);
  state[0] = seed >>> 0;
  for (let i = 1; i < size; i++) {
    const last = state[i - 1] ?? 0;
    state[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
  }
  let next = size;
  const refill = (): void => {
    for (let i = 0; i < size; i++) {
      const y = ((state[i] ?? 0) & 0x80000000) | ((state[(i + 1) % size] ?? 0) & 0x7fffffff);
      state[i] = (state[(i + 397) % size] ?? 0) ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    next = 0;
  };
  return () => {
    if (next === size) refill();
    let y = state[next++] ?? 0;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** Uniform f32 in [low, high) from 24 bits of each draw, as torch.Tensor.uniform_ takes them on the CPU (to 1 ulp). */
export function uniformValues(draw: () => number, count: number, low: number, high: number): Float32Array {
  return new Float32Array(count).map(() => ((draw() & 0xffffff) / 2 ** 24) * (high - low) + low);
}
