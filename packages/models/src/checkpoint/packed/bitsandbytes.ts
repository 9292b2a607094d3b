import { type FourBitWeight, fourBitValues, isFloat, nestedScales, rowwiseValues, sizeOf, type Tensor, tensorDType } from "@lowrank/tensor";
import * as z from "zod/mini";
import { checked, count } from "../../schema.js";
import { bytesPart, numbersPart, packedWeight, plainPart } from "../stored/packed-weight.js";
import { entryOf, type Place, type StoredWeight } from "../stored/stored.js";
import { type DefineMethod, damaged, type Parts, partOf } from "./method.js";

// Layout and state: functional.py (QuantState.as_dict) and nn/modules.py of bitsandbytes.

const state = "quant_state.bitsandbytes__";
const fourBit = new RegExp(`^(.+)\\.(absmax|quant_map|nested_absmax|nested_quant_map|${state}(?:nf4|fp4))$`);
const eightBit = /^(.+)\.(SCB|weight_format)$/;

/** What a weight in 4 bits says of itself. */
const stateSchema = z.object({
  quant_type: z.enum(["nf4", "fp4"]),
  blocksize: count(),
  shape: z.array(count()),
  nested_blocksize: z.optional(count()),
  nested_offset: z.optional(z.number()),
});

/**
 * bitsandbytes: nf4 and fp4, whose scales may be quantised themselves (Dettmers et al. 2023), and rows in 8 bits (Dettmers et al. 2022). A weight is
 * what its own tensors say, whatever config.json does.
 */
export const bitsandbytes: DefineMethod = () => ({
  split(name) {
    const [, weight, part] = fourBit.exec(name) ?? [];
    if (weight !== undefined && part !== undefined) return { weight, part };
    const [, module, row] = eightBit.exec(name) ?? [];
    return module === undefined || row === undefined ? null : { weight: `${module}.weight`, part: row };
  },
  pack: async (parts, weight) => (parts.has("SCB") ? inEightBits(parts, weight) : inFourBits(parts, weight)),
});

/** `weight` i8 [out, in] and `SCB` f32 [out]. `weight_format` other than 0 names a layout of one GPU's. */
async function inEightBits(parts: Parts, weight: string): Promise<StoredWeight> {
  const [codes, scales, format] = [partOf(parts, "", weight), partOf(parts, "SCB", weight), parts.get("weight_format")];
  const { dtype, shape } = entryOf(codes);
  if (dtype !== "I8" || shape.length !== 2) throw damaged(codes, `is ${dtype} of ${shape.length} axes, not I8 of two`);
  checkFloats(scales, shape[0] ?? 0);
  if (format && ((await format.file.values(format.name))[0] ?? 0) !== 0)
    throw damaged(format, "names another layout than that of rows (0), which is not read");
  return packedWeight({
    place: codes,
    shape,
    type: "int8",
    options: {},
    parts: { codes: bytesPart(codes), scb: plainPart(scales, [shape[0] ?? 0]) },
    values: ({ codes: held, scb }, pieces) => {
      const rows = pieces * (shape[0] ?? 0);
      return rowwiseValues(held.reshape([rows, shape[1] ?? 0]), scb.reshape([rows]));
    },
  });
}

/** `weight`, the bytes of two codes each, in whatever dtype; `absmax`, f32 or codes of its own; and their tables. */
async function inFourBits(parts: Parts, weight: string): Promise<StoredWeight> {
  const codes = partOf(parts, "", weight);
  const said = [...parts.keys()].find((part) => part.startsWith(state));
  const { quant_type: type, blocksize: blockSize, shape, ...nested } = await readState(partOf(parts, said ?? `${state}nf4`, weight));
  const [absmax, table] = [partOf(parts, "absmax", weight), partOf(parts, "quant_map", weight)];
  const size = sizeOf(shape);
  const scales = Math.ceil(size / blockSize);
  if (entryOf(codes).bytes !== Math.ceil(size / 2))
    throw damaged(codes, `has ${entryOf(codes).bytes} bytes, and its state asks for ${Math.ceil(size / 2)}`);
  if (blockSize % 2 !== 0) throw damaged(codes, `has blocks of ${blockSize} numbers, which end in the middle of a byte`);
  checkFloats(table, 16);
  const isNested = parts.has("nested_absmax");
  // The last block may be shorter. On a device it is whole, so that another weight can follow.
  const whole = scales * blockSize;
  const common = { packed: bytesPart(codes, [whole / 2]), code: plainPart(table, [16]) };
  const place = { place: codes, shape, type };
  const values = (weight: Omit<FourBitWeight, "blockSize" | "shape">, pieces: number): Tensor => {
    if (whole === size) return fourBitValues({ ...weight, blockSize, shape: [pieces, ...shape] });
    return fourBitValues({ ...weight, blockSize, shape: [pieces, whole] })
      .slice([0, pieces], [0, size])
      .reshape([pieces, ...shape]);
  };
  if (!isNested) {
    checkFloats(absmax, scales);
    return packedWeight({
      ...place,
      options: { blockSize },
      parts: { ...common, absmax: plainPart(absmax, [scales]) },
      values,
    });
  }
  const { nested_blocksize: outer = 256, nested_offset: offset = 0 } = nested;
  const [nestedAbsmax, nestedTable] = [partOf(parts, "nested_absmax", weight), partOf(parts, "nested_quant_map", weight)];
  if (entryOf(absmax).dtype !== "U8" || sizeOf(entryOf(absmax).shape) !== scales)
    throw damaged(absmax, `is not U8 of ${scales} elements, one a block of ${blockSize}`);
  checkFloats(nestedAbsmax, Math.ceil(scales / outer));
  checkFloats(nestedTable, 256);
  return packedWeight({
    ...place,
    options: { blockSize, outer },
    parts: {
      ...common,
      absmax: bytesPart(absmax, [scales]),
      nestedCode: plainPart(nestedTable, [256]),
      nestedAbsmax: plainPart(nestedAbsmax, [Math.ceil(scales / outer)]),
      offset: numbersPart([offset]),
    },
    values: ({ packed, code, absmax: held, nestedCode, nestedAbsmax: largest, offset: mean }, pieces) =>
      values(
        { packed, code, absmax: nestedScales({ absmax: held, code: nestedCode, nestedAbsmax: largest, offset: mean, blockSize: outer }) },
        pieces,
      ),
  });
}

/** Bytes that the state's JSON has at most; the longest have some hundred. */
const mostStateBytes = 2 ** 16;

async function readState(place: Place): Promise<z.output<typeof stateSchema>> {
  const { dtype, bytes } = entryOf(place);
  if (dtype !== "U8" || bytes > mostStateBytes) throw damaged(place, "is not the text of a JSON object in U8");
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(await place.file.values(place.name))));
  } catch {
    throw damaged(place, "holds no JSON");
  }
  return checked(stateSchema, json, `${place.file.name}, ${place.name}`);
}

function checkFloats(place: Place, size: number): void {
  const entry = entryOf(place);
  if (/^B?F(16|32)$/.test(entry.dtype) && isFloat(tensorDType(entry, place.file.name)) && sizeOf(entry.shape) === size) return;
  throw damaged(place, `is ${entry.dtype} of ${sizeOf(entry.shape)} elements, and ${size} floats are needed`);
}
