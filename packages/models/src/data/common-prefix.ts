/** How much two texts begin alike, in UTF-16 units, up to where no character and none of the `specials` is cut. */
export function commonPrefix(a: string, b: string, specials: readonly string[]): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a.charCodeAt(length) === b.charCodeAt(length)) length++;
  if (length === a.length && length === b.length) return length;
  const cut = (text: string): number => {
    let at = length;
    if (at > 0 && at < text.length && (text.charCodeAt(at) & 0xfc00) === 0xdc00) at--;
    for (const special of specials) {
      const found = text.lastIndexOf(special, length - 1);
      if (special !== "" && found >= 0 && found < length && found + special.length > length) at = Math.min(at, found);
    }
    return at;
  };
  return Math.min(cut(a), cut(b));
}
