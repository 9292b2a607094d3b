import {
  blockTensor,
  blockTypes,
  type Device,
  fourBitValues,
  fromBytes,
  nestedScales,
  packedTensor,
  quantizeBlocks,
  quantizeFourBit,
  type Tensor,
  tensor,
} from "@lowrank/tensor";

/** Makes the tensor of a matrix of its values. */
export type MatrixMaker = (values: Float32Array<ArrayBuffer>, shape: readonly number[]) => Tensor;

/** Matrices in bf16, in blocks of a GGUF type, in NF4, or in NF4 whose scales are quantised themselves, by name. */
export function matrixTypes(name: string, device: Device): MatrixMaker {
  if (name === "bf16") return (values, shape) => tensor(values, { dtype: "bf16", shape, device });
  if (name.startsWith("NF4")) return (values, shape) => nf4(values, shape, name !== "NF4", device);
  const type = blockTypes.get(name);
  if (!type) throw new Error(`bench: there is no type ${name}.`);
  return (values, shape) => blockTensor(type, quantizeBlocks(type, values), shape, device);
}

function nf4(values: Float32Array<ArrayBuffer>, shape: readonly number[], isNested: boolean, device: Device): Tensor {
  const { packed, code, blockSize, scales } = quantizeFourBit("nf4", values, { isNested });
  const bytes = (data: Uint8Array): Tensor => fromBytes(data as Uint8Array<ArrayBuffer>, "u8", [data.length], device);
  const floats = (data: ArrayLike<number>): Tensor => tensor(Float32Array.from(data), { device });
  const own = { packed: bytes(packed), code: floats(code) };
  if (scales instanceof Float32Array)
    return packedTensor("nf4", { ...own, absmax: floats(scales) }, ({ packed: p, code: c, absmax }) =>
      fourBitValues({ packed: p, code: c, absmax, blockSize, shape }),
    );
  const nested = {
    absmax: bytes(scales.absmax),
    nestedCode: floats(scales.code),
    nestedAbsmax: floats(scales.nestedAbsmax),
    offset: floats([scales.offset]),
  };
  return packedTensor("nf4", { ...own, ...nested }, ({ packed: p, code: c, absmax, nestedCode, nestedAbsmax, offset }) =>
    fourBitValues({
      packed: p,
      code: c,
      absmax: nestedScales({ absmax, code: nestedCode, nestedAbsmax, offset, blockSize: scales.blockSize }),
      blockSize,
      shape,
    }),
  );
}
