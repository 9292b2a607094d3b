import {
  FourBitQuantizer,
  type FourBitType,
  type MadeTensor,
  type NestedBlocks,
  quantizeRowwise,
  type Shape,
  sizeOf,
  type Tensor,
} from "@lowrank/tensor";

// Layout: nn/modules.py and functional.py (QuantState.as_dict) of bitsandbytes; what transformers' quantizer_bnb_*.py look for.

/** The types in which bitsandbytes' folders are written. */
export const bitsandbytesTypes = ["nf4", "fp4", "int8"] as const;
export type BitsandbytesType = (typeof bitsandbytesTypes)[number];

/** The weight of a dense layer. */
export interface DenseWeightToWrite {
  /** The name of its module in the file. */
  readonly module: string;
  /** [out, in], or [in, out] where `isTransposed`. */
  readonly weight: Tensor;
  readonly isTransposed: boolean;
}

/**
 * The tensors that stand for a dense layer's weight in a folder of bitsandbytes, by their names: [out, in] in the order of its numbers, nf4 and fp4 in blocks of 64
 * whose scales are quantized in turn, int8 with a scale a row. They are made when they are written, from the numbers in f32; of one weight at a time anything is held.
 * Throws NotFiniteError, when they are made, for a number that the type cannot hold.
 */
export function bitsandbytesTensors(type: BitsandbytesType, given: DenseWeightToWrite): ReadonlyMap<string, MadeTensor> {
  return type === "int8" ? inEightBits(given) : inFourBits(type, given);
}

/** [out, in], f32. */
async function numbersOf({ weight, isTransposed }: DenseWeightToWrite): Promise<Float32Array> {
  const values = weight.cast("f32");
  return (await (isTransposed ? values.t() : values).data()) as Float32Array;
}

const shapeOf = ({ weight, isTransposed }: DenseWeightToWrite): Shape => (isTransposed ? [...weight.shape].reverse() : weight.shape);

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array | Uint8Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** What is made once for some tensors that are written one after another, and is not held after the last of them. */
function shared<T>(make: () => Promise<T>, uses: number): () => Promise<T> {
  let [made, left]: [Promise<T> | null, number] = [null, 0];
  return () => {
    if (made === null) [made, left] = [make(), uses];
    const found = made;
    left -= 1;
    if (left === 0) made = null;
    return found;
  };
}

/** Numbers, and scales, that share a scale. */
const [blockSize, nestedSize] = [64, 256];

/** Digits that every number of the state has room for, so that its length is known before its numbers are. */
const stateBytes = 256;

function inFourBits(type: FourBitType, given: DenseWeightToWrite): ReadonlyMap<string, MadeTensor> {
  const shape = shapeOf(given);
  const size = sizeOf(shape);
  const quantize = async (): Promise<{ readonly blocks: ReturnType<FourBitQuantizer["finish"]>; readonly scales: NestedBlocks }> => {
    const quantizer = new FourBitQuantizer(type, size, { blockSize });
    quantizer.add(await numbersOf(given), `${given.module}.weight`);
    const blocks = quantizer.finish();
    return { blocks, scales: blocks.scales as NestedBlocks }; // it was not asked to leave them
  };
  // A file has its f32 tensors first, then its bytes: each weight is quantized for the ones and for the others.
  const [floats, bytes] = [shared(quantize, 3), shared(quantize, 3)];
  const scaleCount = Math.ceil(size / blockSize);
  const name = `${given.module}.weight`;
  const part = (as: MadeTensor["as"], own: Shape, make: MadeTensor["make"]): MadeTensor => ({ as, shape: own, make });
  return new Map([
    [`${name}.nested_absmax`, part("F32", [Math.ceil(scaleCount / nestedSize)], async () => bytesOf((await floats()).scales.nestedAbsmax))],
    [`${name}.nested_quant_map`, part("F32", [256], async () => bytesOf((await floats()).scales.code))],
    [`${name}.quant_map`, part("F32", [16], async () => bytesOf((await floats()).blocks.code))],
    [name, part("U8", [Math.ceil(size / 2), 1], async () => (await bytes()).blocks.packed)],
    [`${name}.absmax`, part("U8", [scaleCount], async () => (await bytes()).scales.absmax)],
    [
      `${name}.quant_state.bitsandbytes__${type}`,
      part("U8", [stateBytes], async () => {
        const { scales } = await bytes();
        const state = {
          quant_type: type,
          blocksize: blockSize,
          dtype: "bfloat16",
          shape,
          nested_blocksize: scales.blockSize,
          nested_dtype: "float32",
          nested_offset: scales.offset,
        };
        // What follows an object is blank, which JSON allows.
        return new TextEncoder().encode(JSON.stringify(state).padEnd(stateBytes));
      }),
    ],
  ]);
}

function inEightBits(given: DenseWeightToWrite): ReadonlyMap<string, MadeTensor> {
  const shape = shapeOf(given);
  const [rows = 0] = shape;
  const quantize = async (): Promise<ReturnType<typeof quantizeRowwise>> =>
    quantizeRowwise(await numbersOf(given), rows, `${given.module}.weight`);
  const [floats, bytes] = [shared(quantize, 1), shared(quantize, 1)];
  return new Map<string, MadeTensor>([
    [`${given.module}.SCB`, { as: "F32", shape: [rows], make: async () => bytesOf((await floats()).scb) }],
    [`${given.module}.weight`, { as: "I8", shape, make: async () => (await bytes()).quantized }],
    [`${given.module}.weight_format`, { as: "U8", shape: [], make: async () => new Uint8Array(1) }],
  ]);
}

/** What config.json says of it. `dense`: modules that stay as they are though they are dense layers. */
export function bitsandbytesConfig(type: BitsandbytesType, dense: readonly string[]): Readonly<Record<string, unknown>> {
  const isFourBit = type !== "int8";
  return {
    quant_method: "bitsandbytes",
    load_in_4bit: isFourBit,
    load_in_8bit: !isFourBit,
    _load_in_4bit: isFourBit,
    _load_in_8bit: !isFourBit,
    bnb_4bit_compute_dtype: "bfloat16",
    bnb_4bit_quant_storage: "uint8",
    bnb_4bit_quant_type: isFourBit ? type : "fp4",
    bnb_4bit_use_double_quant: isFourBit,
    llm_int8_enable_fp32_cpu_offload: false,
    llm_int8_has_fp16_weight: false,
    llm_int8_skip_modules: dense.length > 0 ? dense : null,
    llm_int8_threshold: 6,
  };
}
