import { fromBytes, fromStorage } from "../../graph/create.js";
import type { Device } from "../../graph/device.js";
import { Storage } from "../../graph/storage.js";
import type { Tensor } from "../../graph/tensor.js";
import type { DType } from "../../tensor/dtype.js";
import { ShapeError } from "../../tensor/errors.js";
import { type Shape, sizeOf } from "../../tensor/shape.js";
import { fourBitValues, nestedScales, rowwiseValues } from "../bitsandbytes.js";
import { blockOutline, blockWriter } from "../block-tensor.js";
import type { BlockType } from "../block-type.js";
import { packedTensor } from "../packed.js";
import { FourBitQuantizer, type FourBitType, fourBitSize, type NestedBlocks, nestedSize } from "./four-bit.js";
import { quantizeRowwise } from "./rowwise.js";
import { quantizeBlocks, writableBlockTypes } from "./table.js";
import { Units } from "./units.js";

/** What a weight can be quantized to while it is loaded: bitsandbytes' types, and GGUF's. */
export const quantizedTypes = ["nf4", "fp4", "int8", "q8_0", "q6_k", "q5_k", "q5_1", "q5_0", "q4_k", "q4_1", "q4_0", "mxfp4"] as const;
export type QuantizedType = (typeof quantizedTypes)[number];

/** What takes a type's place where rows are no whole blocks of it, as in llama.cpp's quantization. */
const fallbacks: Partial<Readonly<Record<QuantizedType, QuantizedType>>> = { q4_k: "q5_0", q5_k: "q5_1", q6_k: "q8_0" };

const blockTypeOf = (type: QuantizedType): BlockType | undefined => writableBlockTypes.find(({ name }) => name.toLowerCase() === type);

/** The type that rows of so many numbers can have in a type's place: itself, one of smaller blocks, or null where there is none. */
export function typeForRows(type: QuantizedType, columns: number): QuantizedType | null {
  const blocks = blockTypeOf(type);
  if (!blocks || columns % blocks.blockSize === 0) return type;
  const other = fallbacks[type];
  return other === undefined ? null : typeForRows(other, columns);
}

/** Takes a weight's numbers in order, in any parts, and puts them onto a device in a quantized type. */
export interface WeightQuantizer {
  /** Throws NotFiniteError, with the weight's name, for a number that the type cannot hold. */
  add(values: Float32Array): void;
  /** The weight, as a packed tensor. Throws ShapeError where numbers are missing. */
  finish(): Tensor;
  /** Gives the memory back where the weight is not to be. */
  dispose(): void;
}

/**
 * Begins a weight of a shape, outermost axis first: never whole in f32. nf4 and fp4 have blocks of 64 and scales that are quantized in turn; int8 has a scale a
 * row. Throws ShapeError where rows are no whole blocks (`typeForRows`).
 */
export function weightQuantizer(type: QuantizedType, shape: Shape, device: Device, name: string): WeightQuantizer {
  if (type === "nf4" || type === "fp4") return fourBitQuantizer(type, shape, device, name);
  if (type === "int8") return rowwiseQuantizer(shape, device, name);
  const blocks = blockTypeOf(type) as BlockType; // each other name is one of them
  const writer = blockWriter(blocks, shape, device);
  let at = 0;
  const units = new Units(blocks.blockSize, (values) => {
    writer.write(quantizeBlocks(blocks, values, name), at);
    at += values.length / blocks.blockSize;
  });
  return { add: (values) => units.add(values), finish: () => writer.finish(), dispose: () => writer.dispose() };
}

/** The tensor that `weightQuantizer` makes, without memory or values yet, for planning. Throws ShapeError where rows are no whole blocks. */
export function quantizedOutline(type: QuantizedType, shape: Shape, device: Device): Tensor {
  const blocks = blockTypeOf(type);
  if (blocks) return blockOutline(blocks, shape, device);
  const layout = type === "nf4" || type === "fp4" ? fourBitLayout(shape) : rowwiseLayout(shape);
  const parts: Record<string, Tensor> = {};
  for (const [name, [dtype, own]] of Object.entries(layout)) parts[name] = fromStorage(new Storage(device, dtype, sizeOf(own)), own);
  return type === "nf4" || type === "fp4" ? fourBitTensor(type, parts, shape) : rowwiseTensor(parts, shape);
}

/** What holds a weight: dtype and shape of each part. */
type Layout = Readonly<Record<string, readonly [dtype: DType, shape: Shape]>>;

function fourBitLayout(shape: Shape): Layout {
  const blocks = Math.ceil(sizeOf(shape) / fourBitSize);
  return {
    packed: ["u8", [Math.ceil(sizeOf(shape) / 2)]],
    code: ["f32", [16]],
    absmax: ["u8", [blocks]],
    nestedCode: ["f32", [256]],
    nestedAbsmax: ["f32", [Math.ceil(blocks / nestedSize)]],
    offset: ["f32", [1]],
  };
}

function rowwiseLayout(shape: Shape): Layout {
  const rows = sizeOf(shape.slice(0, -1));
  return { quantized: ["u8", [rows, shape.at(-1) ?? 0]], scb: ["f32", [rows]] };
}

/** Some tensors by the names of a layout. */
type Parts = Readonly<Record<string, Tensor>>;

const taken = (parts: Parts, name: string): Tensor => parts[name] as Tensor; // each layout has the parts of its equation

function fourBitTensor(type: FourBitType, parts: Parts, shape: Shape): Tensor {
  return packedTensor(type, parts, (held) =>
    fourBitValues({
      packed: taken(held, "packed"),
      code: taken(held, "code"),
      absmax: nestedScales({
        absmax: taken(held, "absmax"),
        code: taken(held, "nestedCode"),
        nestedAbsmax: taken(held, "nestedAbsmax"),
        offset: taken(held, "offset"),
        blockSize: nestedSize,
      }),
      blockSize: fourBitSize,
      shape,
    }),
  );
}

const rowwiseTensor = (parts: Parts, shape: Shape): Tensor =>
  packedTensor("int8", parts, (held) => rowwiseValues(taken(held, "quantized"), taken(held, "scb")).reshape(shape));

function onDevice(layout: Layout, values: Readonly<Record<string, Uint8Array | Float32Array>>, device: Device): Parts {
  const parts: Record<string, Tensor> = {};
  for (const [name, [dtype, shape]] of Object.entries(layout)) {
    const { buffer, byteOffset, byteLength } = values[name] as Uint8Array; // each layout is given its own parts
    parts[name] = fromBytes(new Uint8Array(buffer, byteOffset, byteLength), dtype, shape, device);
  }
  return parts;
}

function fourBitQuantizer(type: FourBitType, shape: Shape, device: Device, name: string): WeightQuantizer {
  const quantizer = new FourBitQuantizer(type, sizeOf(shape));
  const units = new Units(fourBitSize, (values) => quantizer.add(values, name));
  return {
    add: (values) => units.add(values),
    finish: () => {
      units.end();
      const { packed, code, scales } = quantizer.finish();
      const { absmax, code: nestedCode, nestedAbsmax, offset } = scales as NestedBlocks; // it was asked for
      const values = { packed, code, absmax, nestedCode, nestedAbsmax, offset: Float32Array.of(offset) };
      return fourBitTensor(type, onDevice(fourBitLayout(shape), values, device), shape);
    },
    dispose: () => {},
  };
}

function rowwiseQuantizer(shape: Shape, device: Device, name: string): WeightQuantizer {
  const width = shape.at(-1) ?? 0;
  const [quantized, scb] = [new Uint8Array(sizeOf(shape)), new Float32Array(sizeOf(shape.slice(0, -1)))];
  let row = 0;
  const units = new Units(Math.max(width, 1), (values) => {
    const rows = values.length / width;
    const made = quantizeRowwise(values, rows, name);
    quantized.set(made.quantized, row * width);
    scb.set(made.scb, row);
    row += rows;
  });
  return {
    add: (values) => units.add(values),
    finish: () => {
      if (row !== scb.length) throw new ShapeError(`quantizeRowwise: ${row} rows of ${scb.length} were given.`, [shape]);
      return rowwiseTensor(onDevice(rowwiseLayout(shape), { quantized, scb }, device), shape);
    },
    dispose: () => {},
  };
}
