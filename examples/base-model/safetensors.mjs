/** Just enough of the safetensors format to write a fresh checkpoint, and to read a trained one and write it in half the size. */

const BYTES = { F32: 4, BF16: 2 };

/** Round to nearest, ties to even: the upper half of an f32. */
function toBf16(values) {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(bits, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16);
}

/**
 * @param {Map<string, { shape: number[], values: Float32Array }>} tensors
 * @param {"F32" | "BF16"} dtype
 * @returns {Buffer} the file
 */
export function encodeSafetensors(tensors, dtype) {
  const header = { __metadata__: { format: "pt" } };
  const chunks = [];
  let offset = 0;
  for (const [name, { shape, values }] of tensors) {
    const end = offset + values.length * BYTES[dtype];
    header[name] = { dtype, shape, data_offsets: [offset, end] };
    const stored = dtype === "BF16" ? toBf16(values) : values;
    chunks.push(Buffer.from(stored.buffer, stored.byteOffset, stored.byteLength));
    offset = end;
  }
  const text = JSON.stringify(header);
  const padded = Buffer.from(text + " ".repeat((8 - (text.length % 8)) % 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, padded, ...chunks]);
}

/** @returns {Map<string, { shape: number[], values: Float32Array }>} the tensors of an f32 file */
export function decodeSafetensors(file) {
  const headerBytes = Number(file.readBigUInt64LE(0));
  const { __metadata__, ...header } = JSON.parse(file.toString("utf8", 8, 8 + headerBytes));
  return new Map(
    Object.entries(header).map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [start, end],
        },
      ]) => {
        if (dtype !== "F32") throw new Error(`${name} is stored as ${dtype}, expected F32. Train with f32 weights first.`);
        const bytes = Uint8Array.from(file.subarray(8 + headerBytes + start, 8 + headerBytes + end)); // copied, so that it is aligned
        return [name, { shape, values: new Float32Array(bytes.buffer) }];
      },
    ),
  );
}
