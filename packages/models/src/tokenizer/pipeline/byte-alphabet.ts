const encoder = new TextEncoder();

/** The sign that stands for a byte in vocabularies of bytes: itself where it can be seen, else one from U+0100 on. GPT-2's bytes_to_unicode. */
export const signOf: readonly string[] = (() => {
  let next = 0x100;
  const isSeen = (byte: number): boolean => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isSeen(byte) ? byte : next++));
})();

/** The byte that a sign stands for. */
export const byteOf: ReadonlyMap<string, number> = new Map(signOf.map((sign, byte) => [sign, byte]));

/** A text's bytes in UTF-8 as their signs. */
export function signsOf(text: string): string {
  let isAscii = true;
  for (let i = 0; i < text.length && isAscii; i++) isAscii = text.charCodeAt(i) < 0x80;
  let signs = "";
  if (isAscii) for (let i = 0; i < text.length; i++) signs += signOf[text.charCodeAt(i)];
  else for (const byte of encoder.encode(text)) signs += signOf[byte];
  return signs;
}
