// ONNX Runtime Web on WebAssembly, SIMD and threads. It runs graphs only, so each task is a model of one or a few nodes, made here as bytes.
import * as ort from "onnxruntime-web";
import { inputIds, inputValues, sampleOf } from "../formula.js";
import { type Prepared, serve, type Tasks } from "./serve.js";

type Bytes = readonly number[] | Uint8Array;

/** Protocol buffers' wire format (protobuf.dev/programming-guides/encoding). */
function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return [...bytes, rest];
}

function join(parts: readonly Bytes[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

const integer = (field: number, value: number): Bytes => [...varint(field * 8), ...varint(value)];
const message = (field: number, ...parts: readonly Bytes[]): Uint8Array => {
  const content = join(parts);
  return join([varint(field * 8 + 2), varint(content.length), content]);
};
const text = (field: number, value: string): Uint8Array => message(field, new TextEncoder().encode(value));
const float = (field: number, value: number): Uint8Array => join([varint(field * 8 + 5), new Uint8Array(new Float32Array([value]).buffer)]);

/** Numbers of fields and of enumerators are those of onnx.proto. */
const floatType = 1;
const int64Type = 7;
const opset = 21;
const irVersion = 10;

interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
}

interface Constant extends Tensor {
  readonly values: Float32Array | BigInt64Array;
}

interface Node {
  readonly type: string;
  readonly inputs: readonly string[];
  readonly output: string;
  readonly attributes?: Readonly<Record<string, number | string | { readonly float: number }>>;
  readonly domain?: string;
}

function attributeOf(name: string, value: number | string | { readonly float: number }): Uint8Array {
  if (typeof value === "number") return message(5, text(1, name), integer(3, value), integer(20, 2));
  if (typeof value === "string") return message(5, text(1, name), text(4, value), integer(20, 3));
  return message(5, text(1, name), float(2, value.float), integer(20, 1));
}

/** A ModelProto from f32 inputs to the f32 tensor "result". */
function modelBytes(
  nodes: readonly Node[],
  inputs: readonly Tensor[],
  constants: readonly Constant[],
  resultShape: readonly number[],
): Uint8Array {
  const valueInfo = (field: number, { name, shape }: Tensor): Uint8Array =>
    message(
      field,
      text(1, name),
      message(2, message(1, integer(1, floatType), message(2, ...shape.map((size) => message(1, integer(1, size)))))),
    );
  const graph = message(
    7,
    ...nodes.map(({ type, inputs: from, output, attributes = {}, domain }) =>
      message(
        1,
        ...from.map((name) => text(1, name)),
        text(2, output),
        text(4, type),
        ...Object.entries(attributes).map(([name, value]) => attributeOf(name, value)),
        ...(domain === undefined ? [] : [text(7, domain)]),
      ),
    ),
    text(2, "task"),
    ...constants.map(({ name, shape, values }) =>
      message(
        5,
        ...shape.map((size) => integer(1, size)),
        integer(2, values instanceof Float32Array ? floatType : int64Type),
        text(8, name),
        message(9, new Uint8Array(values.buffer, values.byteOffset, values.byteLength)),
      ),
    ),
    ...inputs.map((input) => valueInfo(11, input)),
    valueInfo(12, { name: "result", shape: resultShape }),
  );
  const imports = [message(8, text(1, ""), integer(2, opset)), message(8, text(1, "com.microsoft"), integer(2, 1))];
  return join([integer(1, irVersion), graph, ...imports]);
}

interface Model {
  readonly nodes: readonly Node[];
  /** Given anew at each run. */
  readonly inputs: readonly (Tensor & { readonly values: Float32Array })[];
  /** Part of the model: prepared (packed) once by the runtime. */
  readonly constants?: readonly Constant[];
  readonly shape: readonly number[];
}

async function prepare({ nodes, inputs, constants = [], shape }: Model): Promise<Prepared> {
  const session = await ort.InferenceSession.create(modelBytes(nodes, inputs, constants, shape), {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
  });
  const feeds = Object.fromEntries(inputs.map(({ name, shape: dims, values }) => [name, new ort.Tensor("float32", values, [...dims])]));
  const once = async (): Promise<Float32Array> => (await session.run(feeds))["result"]?.data as Float32Array; // the model's only output, f32
  return {
    sample: sampleOf(await once()),
    async run(count) {
      for (let i = 0; i < count; i++) await once();
    },
    dispose: () => void session.release(),
  };
}

const rowsOf = (rows: number, columns: number, seed?: number): Model["inputs"][number] => ({
  name: "x",
  shape: [rows, columns],
  values: inputValues(rows * columns, 0, seed),
});

const tasks: Tasks = {
  matmul({ m, n, k, transA = false, transB = false, batch, seed }) {
    const leading = batch ? [batch] : [];
    const a = { name: "a", shape: [...leading, ...(transA ? [k, m] : [m, k])], values: inputValues((batch ?? 1) * m * k, 0, seed) };
    const b = { name: "b", shape: [...leading, ...(transB ? [n, k] : [k, n])], values: inputValues((batch ?? 1) * k * n, 1, seed) };
    const node: Node =
      transA || transB
        ? {
            type: "FusedMatMul",
            domain: "com.microsoft",
            inputs: ["a", "b"],
            output: "result",
            attributes: { transA: Number(transA), transB: Number(transB), alpha: { float: 1 } },
          }
        : { type: "MatMul", inputs: ["a", "b"], output: "result" };
    return prepare({ nodes: [node], inputs: [a], constants: [b], shape: [...leading, m, n] });
  },
  elementwise({ size, seed }) {
    const inputs = ["a", "b", "c"].map((name, number) => ({ name, shape: [size], values: inputValues(size, number, seed) }));
    const nodes: Node[] = [
      { type: "Mul", inputs: ["a", "b"], output: "product" },
      { type: "Add", inputs: ["product", "c"], output: "sum" },
      { type: "Gelu", inputs: ["sum"], output: "result", attributes: { approximate: "tanh" } },
    ];
    return prepare({ nodes, inputs, shape: [size] });
  },
  sum: ({ rows, columns, seed }) =>
    prepare({
      nodes: [{ type: "ReduceSum", inputs: ["x", "axes"], output: "result", attributes: { keepdims: 0 } }],
      inputs: [rowsOf(rows, columns, seed)],
      constants: [{ name: "axes", shape: [1], values: new BigInt64Array([1n]) }],
      shape: [rows],
    }),
  softmax: ({ rows, columns, seed }) =>
    prepare({
      nodes: [{ type: "Softmax", inputs: ["x"], output: "result", attributes: { axis: 1 } }],
      inputs: [rowsOf(rows, columns, seed)],
      shape: [rows, columns],
    }),
  layernorm: ({ rows, columns, seed }) =>
    prepare({
      nodes: [
        {
          type: "LayerNormalization",
          inputs: ["x", "weight", "bias"],
          output: "result",
          attributes: { axis: 1, epsilon: { float: 1e-5 } },
        },
      ],
      inputs: [rowsOf(rows, columns, seed)],
      constants: [
        { name: "weight", shape: [columns], values: new Float32Array(columns).fill(1) },
        { name: "bias", shape: [columns], values: new Float32Array(columns) },
      ],
      shape: [rows, columns],
    }),
  gather: ({ rows, width, count, seed }) =>
    prepare({
      nodes: [{ type: "Gather", inputs: ["x", "ids"], output: "result", attributes: { axis: 0 } }],
      inputs: [rowsOf(rows, width, seed)],
      constants: [{ name: "ids", shape: [count], values: BigInt64Array.from(inputIds(count, rows), BigInt) }],
      shape: [count, width],
    }),
};

await serve(async ({ threads }) => {
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  return { name: "onnx-wasm", version: ort.env.versions.web ?? ort.env.versions.common, detail: `SIMD, ${threads} threads`, tasks };
});
