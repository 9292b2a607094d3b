import { depthStep, doubleProductModule, tileSide } from "../../kernels/wasm/double-product.js";

/** A matrix on the host: its element (row, column) is `of[row · rowStride + column · columnStride]`. */
export interface HostOperand {
  readonly of: Float64Array | Float32Array;
  readonly rowStride: number;
  readonly columnStride: number;
}

/** The product that is added: of A [rows, inner] and B [inner, columns]. */
export interface HostProductOptions {
  readonly rows: number;
  readonly inner: number;
  readonly columns: number;
  /** Multiplies the product; default 1. */
  readonly factor?: number;
  /** Whether entries above the diagonal are of no use, so that most of them are left as they are; default false. */
  readonly isLower?: boolean;
}

/** Rows of either operand that are packed at a time, and entries of each: two blocks and their product stay in the second-level cache. */
const blockRows = 144;
const blockDepth = 256;

/** Where a block of A, one of B and their product lie, as indices of numbers. */
export const place: { readonly left: number; readonly right: number; readonly result: number } = {
  left: 0,
  right: blockRows * blockDepth,
  result: 2 * blockRows * blockDepth,
};
const pageBytes = 65_536;

/** C += A Bᵀ of packed blocks, as `doubleProductModule` has it; here without vectors, for where WebAssembly is not allowed. */
function multiplyPlainly(memory: Float64Array, rows: number, columns: number, depth: number): void {
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const [own, other, at] = [place.left + row * depth, place.right + column * depth, place.result + row * columns + column];
      let sum = 0;
      for (let i = 0; i < depth; i++) sum += (memory[own + i] ?? 0) * (memory[other + i] ?? 0);
      memory[at] = (memory[at] ?? 0) + sum;
    }
  }
}

/** Packed blocks of a thread and what multiplies them. */
interface BlockProduct {
  readonly memory: Float64Array;
  multiply(rows: number, columns: number, depth: number): void;
}

/** This thread's. */
let blockProduct: BlockProduct | null = null;

/** Memory for the blocks of a thread, and the product in it; `addHostProduct` opens one. */
export function openBlockProduct(): BlockProduct {
  const bytes = 8 * (place.result + blockRows * blockRows);
  let module: WebAssembly.Module;
  try {
    module = new WebAssembly.Module(doubleProductModule());
  } catch (error) {
    // A page's Content-Security-Policy may forbid it.
    if (!(error instanceof WebAssembly.CompileError)) throw error;
    const memory = new Float64Array(bytes / 8);
    return { memory, multiply: (rows, columns, depth) => multiplyPlainly(memory, rows, columns, depth) };
  }
  const pages = Math.ceil(bytes / pageBytes);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  const { multiply } = new WebAssembly.Instance(module, { env: { memory } }).exports as { multiply: (...numbers: number[]) => void };
  return {
    memory: new Float64Array(memory.buffer),
    multiply: (rows, columns, depth) => multiply(8 * place.left, 8 * place.right, 8 * place.result, rows, columns, depth),
  };
}

/** The next multiple. */
const upTo = (value: number, step: number): number => Math.ceil(value / step) * step;

/** Copies `rows` rows from `row` on, `depth` entries from `at` on, to rows of as many as a step takes, or some: what is missing is 0. */
function pack(
  memory: Float64Array,
  start: number,
  { of, rowStride, columnStride }: HostOperand,
  row: number,
  rows: number,
  at: number,
  depth: number,
): void {
  const length = upTo(depth, depthStep);
  if (columnStride === 1) {
    for (let i = 0; i < rows; i++) {
      const from = (row + i) * rowStride + at;
      memory.set(of.subarray(from, from + depth), start + i * length);
    }
  } else {
    // What lies side by side is read side by side.
    for (let k = 0; k < depth; k++) {
      const from = row * rowStride + (at + k) * columnStride;
      for (let i = 0; i < rows; i++) memory[start + i * length + k] = of[from + i * rowStride] ?? 0;
    }
  }
  if (length > depth) for (let i = 0; i < rows; i++) memory.fill(0, start + i * length + depth, start + (i + 1) * length);
}

/** Adds `factor` times `count` numbers from index `from` on to those from `to` on. */
function addNumbers(sums: Float64Array, to: number, memory: Float64Array, from: number, count: number, factor: number): void {
  for (let i = 0; i < count; i++) sums[to + i] = (sums[to + i] ?? 0) + factor * (memory[from + i] ?? 0);
}

/**
 * Adds `factor` · A B to the first columns of `sums`, a matrix whose rows are `stride` numbers apart, in float64 on the calling thread: the host's
 * product, for decompositions and the like, whose operands are no tensors. Which numbers are added in which order depends on the sizes alone.
 * torch.addmm of float64.
 */
export function addHostProduct(
  sums: Float64Array,
  stride: number,
  left: HostOperand,
  right: HostOperand,
  { rows, inner, columns, factor = 1, isLower = false }: HostProductOptions,
): void {
  blockProduct ??= openBlockProduct();
  const { memory, multiply } = blockProduct;
  const turned: HostOperand = { of: right.of, rowStride: right.columnStride, columnStride: right.rowStride };
  for (let row = 0; row < rows; row += blockRows) {
    const ownRows = Math.min(blockRows, rows - row);
    const end = isLower ? Math.min(columns, row + ownRows) : columns;
    for (let column = 0; column < end; column += blockRows) {
      const ownColumns = Math.min(blockRows, end - column);
      const width = upTo(ownColumns, tileSide);
      memory.fill(0, place.result, place.result + upTo(ownRows, tileSide) * width);
      for (let at = 0; at < inner; at += blockDepth) {
        const depth = Math.min(blockDepth, inner - at);
        pack(memory, place.left, left, row, ownRows, at, depth);
        pack(memory, place.right, turned, column, ownColumns, at, depth);
        multiply(upTo(ownRows, tileSide), width, upTo(depth, depthStep));
      }
      for (let i = 0; i < ownRows; i++) addNumbers(sums, (row + i) * stride + column, memory, place.result + i * width, ownColumns, factor);
    }
  }
}
