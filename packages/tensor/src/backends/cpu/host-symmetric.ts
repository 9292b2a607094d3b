import { doubleSymmetricModule } from "../../kernels/wasm/double-symmetric.js";

/** A symmetric matrix A on the host in float64 and vectors beside it, in memory of the calling thread. */
export interface HostSymmetric {
  /** A [n, n], of which the lower triangle counts. */
  readonly matrix: Float64Array;
  /** [n] each. */
  readonly v: Float64Array;
  readonly w: Float64Array;
  readonly x: Float64Array;
  readonly image: Float64Array;
  /** The first `count` rows and columns become A − v wᵀ − w vᵀ, and `image` A x over them. */
  update(count: number): void;
}

const pageBytes = 65_536;

/** Bytes that a thread keeps for the next matrix; larger ones have memory of their own. */
const keptBytes = 2 ** 25;

interface Updater {
  readonly memory: WebAssembly.Memory;
  update(...numbers: number[]): void;
}

/** This thread's. */
let kept: Updater | null = null;

function openUpdater(pages: number, maximum: number): Updater {
  const memory = new WebAssembly.Memory({ initial: pages, maximum });
  const module = new WebAssembly.Module(doubleSymmetricModule());
  const { update } = new WebAssembly.Instance(module, { env: { memory } }).exports as { update: (...numbers: number[]) => void };
  return { memory, update };
}

/** Memory for a matrix of some bytes; null where there is no WebAssembly, or its addresses do not reach so far. */
function updaterOf(bytes: number): Updater | null {
  const pages = Math.ceil(bytes / pageBytes);
  if (pages >= pageBytes) return null;
  try {
    if (bytes > keptBytes) return openUpdater(pages, pages);
    kept ??= openUpdater(pages, keptBytes / pageBytes);
    const missing = pages - kept.memory.buffer.byteLength / pageBytes;
    if (missing > 0) kept.memory.grow(missing);
    return kept;
  } catch (error) {
    // A page's Content-Security-Policy may forbid it.
    if (!(error instanceof WebAssembly.CompileError)) throw error;
    return null;
  }
}

/**
 * Memory for a symmetric matrix [n, n] whose numbers, and those of the vectors, are anything at first. It is the caller's until the calling thread
 * asks for the next.
 */
export function hostSymmetric(n: number): HostSymmetric {
  const length = n * n + 4 * n;
  const updater = updaterOf(8 * length);
  const memory = updater ? new Float64Array(updater.memory.buffer, 0, length) : new Float64Array(length);
  const vector = (index: number): Float64Array => memory.subarray(n * n + index * n, n * n + (index + 1) * n);
  const vectors = { matrix: memory.subarray(0, n * n), v: vector(0), w: vector(1), x: vector(2), image: vector(3) };
  const addresses = [vectors.v, vectors.w, vectors.x, vectors.image].map(({ byteOffset }) => byteOffset);
  const update = (count: number): void => {
    vectors.image.fill(0, 0, count);
    // The kernel takes rows in pairs.
    const even = count - (count % 2);
    if (!updater) updatePlainly(vectors, n, 0, even);
    else updater.update(0, 8 * n, even, ...addresses);
    updatePlainly(vectors, n, even, count);
  };
  return { ...vectors, update };
}

/** Rows `from` to `until` of that without vectors. */
function updatePlainly({ matrix, v, w, x, image }: Omit<HostSymmetric, "update">, n: number, from: number, until: number): void {
  for (let row = from; row < until; row++) {
    const start = row * n;
    const [ownV, ownW, ownX] = [v[row] ?? 0, w[row] ?? 0, x[row] ?? 0];
    let sum = 0;
    for (let i = 0; i < row; i++) {
      const value = (matrix[start + i] ?? 0) - ownV * (w[i] ?? 0) - ownW * (v[i] ?? 0);
      matrix[start + i] = value;
      sum += value * (x[i] ?? 0);
      image[i] = (image[i] ?? 0) + value * ownX;
    }
    const last = (matrix[start + row] ?? 0) - 2 * ownV * ownW;
    matrix[start + row] = last;
    image[row] = (image[row] ?? 0) + sum + last * ownX;
  }
}
