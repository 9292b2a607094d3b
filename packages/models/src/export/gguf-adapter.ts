import {
  CheckpointError,
  checkFiles,
  type FileSystem,
  type GgufTensorToWrite,
  type GgufValueToWrite,
  ggufEncode,
  type Shape,
  type Tensor,
  writeGguf,
} from "@lowrank/tensor";
import type { CausalLM } from "../causal-lm.js";
import { type GgufChange, type GgufLink, inverse, unitsOf } from "../families/gguf/change.js";
import { ggufMetadata, ggufUnpaired } from "../families/gguf-model.js";
import { filedModel } from "./gguf-links.js";

/** A low-rank pair on a module of a model: W + scaling · B A of a dense layer's W [out, in], E + scaling · (B A)ᵀ of an embedding's E. */
export interface AdapterPair {
  /** The module's name in the model. */
  readonly path: string;
  readonly kind: "dense" | "embedding";
  /** [rank, in], or [rank, count] of an embedding. */
  readonly a: Tensor;
  /** [out, rank], or [width, rank]. */
  readonly b: Tensor;
  readonly scaling: number;
  /** DoRA's; null for plain LoRA. */
  readonly magnitude: Tensor | null;
}

/** How an adapter is written as a GGUF file. */
export interface SaveGgufAdapterOptions {
  readonly files: FileSystem;
  /** `general.name`. */
  readonly name: string;
  /** Further `general.*`. */
  readonly general?: ReadonlyMap<string, GgufValueToWrite>;
}

/** The way that works for whatever llama.cpp cannot take beside a model. */
const remedy = "Merge the adapter into its base (lowrank merge) and export the model.";

/**
 * Writes the pairs of an adapter as llama.cpp's LoRA file, for the base as llama.cpp's converter writes it: what this changes of a weight is done to B's
 * rows or A's columns. llama.cpp scales by alpha / rank, alpha being one for all: other scalings stand in B. Rejects with CheckpointError, naming the module
 * and the way that works, for what llama.cpp cannot take: DoRA, a head that is the embedding, changes that are not of rows or columns.
 */
export async function saveGgufAdapter(
  model: CausalLM,
  pairs: readonly AdapterPair[],
  path: string,
  { files, name, general = new Map() }: SaveGgufAdapterOptions,
): Promise<void> {
  checkFiles(files, "saveGgufAdapter");
  const { read, links: filed, nameOf } = filedModel(model, path);
  const architecture = ggufMetadata(read, path).get("general.architecture") as GgufValueToWrite; // it is the first of them
  const links = new Map<string, GgufLink>();
  for (const link of filed) for (const { name: own } of link.parameters) links.set(own, link);
  const unpaired = ggufUnpaired(read, path);
  const alpha = commonest(pairs.map(({ scaling, a }) => scaling * a.sizeAt(0)));
  const tensors: GgufTensorToWrite[] = [];
  for (const pair of pairs) {
    const link = checkedLink(pair, model, links.get(nameOf(`${pair.path}.weight`)), path);
    if (unpaired && link.tensors.some(({ name: own }) => unpaired.test(own)))
      throw refused(
        path,
        pair.path,
        `llama.cpp looks for no pair beside ${link.tensors.map(({ name: own }) => own).join(", ")}, and would leave it out`,
      );
    const { isTransposed = false } = model.namedModules().get(pair.path) as { readonly isTransposed?: boolean };
    for (const part of await placed({ ...pair, isTransposed }, link, alpha, path)) {
      tensors.push(plainTensor(`${part.name}.lora_a`, part.a, path), plainTensor(`${part.name}.lora_b`, part.b, path));
    }
  }
  const metadata = new Map<string, GgufValueToWrite>([
    ["general.architecture", architecture],
    ["general.type", { type: "string", value: "adapter" }],
    ["adapter.type", { type: "string", value: "lora" }],
    ["general.name", { type: "string", value: name }],
    ...general,
    ["general.file_type", { type: "u32", value: 0 }],
    ["adapter.lora.alpha", { type: "f32", value: alpha }],
    ["general.quantization_version", { type: "u32", value: 2 }],
  ]);
  await files.write(path, writeGguf(path, { metadata, tensors }));
}

function refused(path: string, module: string, fact: string): CheckpointError {
  return new CheckpointError(`${path}: ${module}: ${fact}. ${remedy}`, path);
}

/** Where the weight of a pair's module lies in a file. Throws CheckpointError for what llama.cpp cannot take. */
function checkedLink({ path: module, kind, magnitude }: AdapterPair, model: CausalLM, link: GgufLink | undefined, path: string): GgufLink {
  if (magnitude) throw refused(path, module, "there is no DoRA in llama.cpp");
  const own = model.namedModules().get(module) as { readonly weight?: unknown } | undefined;
  const sharing = [...model.namedModules()].filter(([, other]) => (other as { readonly weight?: unknown }).weight === own?.weight);
  if (sharing.length > 1)
    throw refused(
      path,
      module,
      `it shares its weight with ${sharing.flatMap(([name]) => (name === module ? [] : [name])).join(", ")}, and llama.cpp would look for one pair at both`,
    );
  if (!link) throw refused(path, module, "there is no tensor for it in llama.cpp's files");
  if (link.parameters.length > 1) throw refused(path, module, "its weight is in one tensor with others in llama.cpp's files");
  if (kind === "embedding" && link.tensors.some(({ name }) => name !== "token_embd.weight"))
    throw refused(path, module, "of embeddings, llama.cpp takes a pair on that of tokens alone");
  return link;
}

/** The value that most have, of those the first. */
function commonest(values: readonly number[]): number {
  const counts = new Map<number, number>();
  for (const value of values.map(Math.fround)) counts.set(value, (counts.get(value) ?? 0) + 1);
  const [most] = [...counts].sort(([, a], [, b]) => b - a);
  return most?.[0] || 1;
}

/** Rows of numbers. */
interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float32Array;
}

async function matrixOf(tensor: Tensor): Promise<Matrix> {
  return { rows: tensor.sizeAt(0), columns: tensor.sizeAt(1), values: Float32Array.from(await tensor.data()) };
}

interface PlacedPair {
  readonly name: string;
  readonly a: Matrix;
  readonly b: Matrix;
}

/** A pair's matrices as they stand beside the tensors that its weight is in: one pair a tensor, with A the same. */
async function placed(
  { path: module, kind, a: first, b: second, scaling, isTransposed }: AdapterPair & { readonly isTransposed: boolean },
  link: GgufLink,
  alpha: number,
  path: string,
): Promise<readonly PlacedPair[]> {
  let [a, b] = [await matrixOf(first), await matrixOf(second)];
  const rank = a.rows;
  const factor = (scaling * rank) / alpha;
  if (factor !== 1) b = { ...b, values: b.values.map((value) => value * factor) };
  if (kind === "embedding") {
    const rows = link.tensors[0]?.shape[0] ?? a.columns;
    return [{ name: "token_embd.weight", a: withRows(transposed(a), rows), b }];
  }
  // A weight that is stored [in, out] is turned in the file; the pair is the layer's, [out, in], already.
  const own = isTransposed ? link.changes.slice(0, -1) : link.changes;
  const isRefused = (isTransposed && !isTransposition(link.changes.at(-1))) || own.some(({ kind: change }) => change === "logOfNegative");
  for (const change of [...own].reverse()) {
    const next = isRefused ? null : changed(change, a, b);
    if (!next) throw refused(path, module, "its weight is filed in another order, of which no pair of matrices is the same");
    ({ a, b } = next);
  }
  const parts: PlacedPair[] = [];
  let row = 0;
  for (const { name, shape } of link.tensors) {
    const [rows = 0, columns] = shape;
    if (shape.length !== 2 || columns !== a.columns) throw refused(path, module, `${name} is no matrix [out, in] in the file`);
    parts.push({ name, a, b: { rows, columns: rank, values: b.values.subarray(row * rank, (row + rows) * rank) } });
    row += rows;
  }
  return parts;
}

const isTransposition = (change: GgufChange | undefined): boolean => change?.kind === "axes" && change.axes.join() === "1,0";

/** What undoing a change of a weight [out, in] does to B A: null where that is no pair any more. */
function changed(change: GgufChange, a: Matrix, b: Matrix): { readonly a: Matrix; readonly b: Matrix } | null {
  const columns = a.columns;
  switch (change.kind) {
    case "axes":
    case "units": {
      const { width, order } = inverse(unitsOf(change));
      const from = change.kind === "axes" ? (change.from ?? 0) : 0;
      if (width % columns === 0 && from % columns === 0)
        return { a, b: { ...b, values: movedRows(b.values, order, (width / columns) * b.columns, (from / columns) * b.columns) } };
      const units = columns % width === 0 && from === 0 ? columns / width : 0;
      const isAlike = units > 0 && order.every((place, to) => place === (order[to % units] ?? 0) + to - (to % units));
      return isAlike ? { a: { ...a, values: movedColumns(a, order.subarray(0, units), width) }, b } : null;
    }
    case "rows":
      return change.width === columns ? { a, b: withRows(b, change.file) } : null;
    case "add":
      return { a, b };
    case "scale": {
      if (change.runs.some((run) => run % columns !== 0)) return null;
      const factors = change.runs.flatMap((run, i) => Array<number>(run / columns).fill(change.by[i] ?? 1));
      return { a, b: { ...b, values: b.values.map((value, i) => value * (factors[Math.floor(i / b.columns)] ?? 1)) } };
    }
    case "logOfNegative":
      return null;
  }
}

/** Units of `width` in this order, from a number on; what is in front of it and behind them stays. */
function movedRows(values: Float32Array, order: Int32Array, width: number, from = 0): Float32Array {
  const made = values.slice();
  order.forEach((place, to) => {
    made.set(values.subarray(from + place * width, from + (place + 1) * width), from + to * width);
  });
  return made;
}

/** Each row's units of `width` in this order. */
function movedColumns({ rows, columns, values }: Matrix, order: Int32Array, width: number): Float32Array {
  const made = new Float32Array(values.length);
  for (let row = 0; row < rows; row++)
    made.set(movedRows(values.subarray(row * columns, (row + 1) * columns), order, width), row * columns);
  return made;
}

function transposed({ rows, columns, values }: Matrix): Matrix {
  const made = new Float32Array(values.length);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) made[column * rows + row] = values[row * columns + column] ?? 0;
  return { rows: columns, columns: rows, values: made };
}

/** Cut at the end, or with rows of zeros there. */
function withRows({ columns, values }: Matrix, rows: number): Matrix {
  const made = new Float32Array(rows * columns);
  made.set(values.subarray(0, made.length));
  return { rows, columns, values: made };
}

function plainTensor(name: string, { rows, columns, values }: Matrix, path: string): GgufTensorToWrite {
  const shape: Shape = [rows, columns];
  return { name, type: "F32", shape, chunks: () => [ggufEncode("F32", values, { path, name, shape })] };
}
