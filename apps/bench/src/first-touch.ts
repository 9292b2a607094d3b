const pageBytes = 4096;
/** Bytes that are touched: enough that the clock's steps do not count. */
const touchedBytes = 2 ** 26;

/**
 * Microseconds that the first touch of a page of 4 kB takes, which is the system's work and, in a virtual machine, the hypervisor's: some 0.2 are usual.
 * Starts, plans and loads touch tens of thousands of pages, which no program of ours can hurry.
 */
export function firstTouch(): number {
  const memory = new WebAssembly.Memory({ initial: touchedBytes / 65_536, maximum: touchedBytes / 65_536 });
  const bytes = new Uint8Array(memory.buffer);
  const start = performance.now();
  for (let at = 0; at < bytes.length; at += pageBytes) bytes[at] = 1;
  return (1000 * (performance.now() - start)) / (touchedBytes / pageBytes);
}
