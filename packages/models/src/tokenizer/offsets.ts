/** Bytes that GPT-2's byte-level alphabet writes as themselves; the others stand at U+0100 and above, in order. */
const isPlain = (byte: number): boolean => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;

/** The byte of each letter of the byte-level alphabet. */
const byteOf: ReadonlyMap<number, number> = new Map(
  (() => {
    let next = 256;
    return Array.from({ length: 256 }, (_, byte) => [isPlain(byte) ? byte : next++, byte] as const);
  })(),
);

/** How far a token is looked for where the text does not go on with it. */
const reach = 64;

/**
 * The characters [start, end) that tokens stand for, in UTF-16 units, found by what the tokens spell: `spellings` are a vocabulary's texts in
 * byte-level letters, or with ▁ for a space and <0x0A> for a byte. A token of a part of a character has all of it.
 */
export function alignedOffsets(
  text: string,
  spellings: readonly string[],
  isByteLevel: boolean,
  added: ReadonlySet<string>,
): [number, number][] {
  const encoder = new TextEncoder();
  const bytes = encoder.encode(text);
  // For each byte the unit where its character begins, and where it ends.
  const starts = new Uint32Array(bytes.length + 1);
  const ends = new Uint32Array(bytes.length + 1);
  let at = 0;
  let unit = 0;
  starts[bytes.length] = text.length;
  for (const character of text) {
    const size = encoder.encode(character).length;
    for (let i = 0; i < size; i++) {
      starts[at + i] = unit;
      ends[at + i] = unit + character.length;
    }
    at += size;
    unit += character.length;
  }
  let place = 0;
  return spellings.map((spelling) => {
    const spelled = added.has(spelling) ? encoder.encode(spelling) : spelledBytes(spelling, isByteLevel, encoder);
    // A space in front may be the tokenizer's own.
    const tries = spelled[0] === 0x20 ? [spelled, spelled.subarray(1)] : [spelled];
    const here = tries.find((tried) => isAt(bytes, tried, place));
    if (here?.length === 0) return [starts[place] as number, starts[place] as number];
    for (const tried of here ? [here] : tries) {
      const found = indexOf(bytes, tried, place);
      if (found < 0) continue;
      place = found + tried.length;
      return [starts[found] as number, ends[place - 1] as number]; // below the length
    }
    return [0, 0];
  });
}

function isAt(bytes: Uint8Array, wanted: Uint8Array, at: number): boolean {
  return at + wanted.length <= bytes.length && wanted.every((byte, i) => bytes[at + i] === byte);
}

function spelledBytes(spelling: string, isByteLevel: boolean, encoder: TextEncoder): Uint8Array {
  if (isByteLevel) return Uint8Array.from(spelling, (letter) => byteOf.get(letter.codePointAt(0) ?? 0) ?? 0);
  const byte = /^<0x([0-9A-F]{2})>$/.exec(spelling)?.[1];
  return byte === undefined ? encoder.encode(spelling.replaceAll("▁", " ")) : Uint8Array.of(Number.parseInt(byte, 16));
}

function indexOf(bytes: Uint8Array, wanted: Uint8Array, from: number): number {
  for (let start = from; start <= Math.min(from + reach, bytes.length - wanted.length); start++)
    if (isAt(bytes, wanted, start)) return start;
  return -1;
}
