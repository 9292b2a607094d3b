/**
 * The two WebAssembly programs that the roofline runs, as bytes. A few dozen instructions do not need the engine's assembler, which is not
 * public; what they are is beside each byte.
 */

function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest % 128;
    rest = Math.floor(rest / 128);
    bytes.push(rest > 0 ? low | 0x80 : low);
  } while (rest > 0);
  return bytes;
}

function section(id: number, body: readonly number[]): number[] {
  return [id, ...unsigned(body.length), ...body];
}

const types = { i32: 0x7f, f32: 0x7d, v128: 0x7b } as const;
const vector = {
  const: (value: number): number[] => {
    const lane = [...new Uint8Array(new Float32Array([value]).buffer)];
    return [0xfd, 0x0c, ...lane, ...lane, ...lane, ...lane];
  },
  load: (offset: number): number[] => [0xfd, 0x00, 0x04, ...unsigned(offset)],
  store: (offset: number): number[] => [0xfd, 0x0b, 0x04, ...unsigned(offset)],
  add: [0xfd, 0xe4, 0x01],
  mul: [0xfd, 0xe6, 0x01],
  relaxedMadd: [0xfd, 0x85, 0x02],
  firstLane: [0xfd, 0x1f, 0x00],
};
const get = (local: number): number[] => [0x20, ...unsigned(local)];
const set = (local: number): number[] => [0x21, ...unsigned(local)];
const tee = (local: number): number[] => [0x22, ...unsigned(local)];
/** i32.const of 0 … 8191, in two bytes of signed LEB128. */
const i32 = (value: number): number[] => [0x41, (value & 0x7f) | 0x80, value >> 7];

/** A module with one exported function `run` of i32 parameters, over an imported memory if asked for. */
function moduleOf(
  parameterCount: number,
  vectorLocals: number,
  code: readonly number[],
  options: { readonly memory: boolean; readonly result: boolean },
): Uint8Array<ArrayBuffer> {
  const parameters = Array.from({ length: parameterCount }, () => types.i32);
  const result = options.result ? [1, types.f32] : [0];
  const name = (text: string): number[] => [...unsigned(text.length), ...[...text].map((c) => c.charCodeAt(0))];
  const body = [1, ...unsigned(vectorLocals), types.v128, ...code, 0x0b];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, parameterCount, ...parameters, ...result]),
    // Shared, from 1 to 65536 pages.
    ...(options.memory ? section(2, [1, ...name("env"), ...name("memory"), 0x02, 0x03, 1, ...unsigned(65536)]) : []),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name("run"), 0, 0]),
    ...section(10, [1, ...unsigned(body.length), ...body]),
  ]);
}

/** How often the body of the arithmetic loop stands in it, so that counting costs nothing. */
export const arithmeticUnroll = 8;

/**
 * run(count) → f32: `chains` accumulators in registers, acc ← acc · ½ + ½ each, `arithmeticUnroll` times a turn, `count` turns.
 * The chains are independent, so that the multiplier never waits; with too many of them the engine runs out of registers. Fused, a
 * multiplication and its addition are one relaxed instruction.
 */
export function arithmeticModule(chains: number, isFused = false): Uint8Array<ArrayBuffer> {
  const half = 1 + chains;
  const accumulators = Array.from({ length: chains }, (_, i) => 1 + i);
  const start = [...accumulators.flatMap((acc) => [...vector.const(acc / 16), ...set(acc)]), ...vector.const(0.5), ...set(half)];
  const step = isFused ? [...get(half), ...vector.relaxedMadd] : [...vector.mul, ...get(half), ...vector.add];
  const once = accumulators.flatMap((acc) => [...get(acc), ...get(half), ...step, ...set(acc)]);
  const turn = Array.from({ length: arithmeticUnroll }, () => once).flat();
  const loop = [0x03, 0x40, ...turn, ...get(0), ...i32(1), 0x6b, ...tee(0), 0x0d, 0, 0x0b];
  const total = [...get(1), ...accumulators.slice(1).flatMap((acc) => [...get(acc), ...vector.add])];
  return moduleOf(1, chains + 1, [...start, ...loop, ...total, ...vector.firstLane], { memory: false, result: true });
}

/** Bytes that one turn of the triad's loop handles of each array. */
export const triadStep = 64;

/** run(a, b, c, turns): a[i] ← b[i] + 3 c[i] in f32, `triadStep` bytes a turn (the triad of McCalpin's STREAM). */
export function triadModule(): Uint8Array<ArrayBuffer> {
  const factor = 4;
  const move = (offset: number): number[] => [
    ...get(0),
    ...[...get(1), ...vector.load(offset)],
    ...[...get(2), ...vector.load(offset), ...get(factor), ...vector.mul],
    ...vector.add,
    ...vector.store(offset),
  ];
  const advance = (local: number): number[] => [...get(local), ...i32(triadStep), 0x6a, ...set(local)];
  const turn = [...move(0), ...move(16), ...move(32), ...move(48), ...advance(0), ...advance(1), ...advance(2)];
  const loop = [0x03, 0x40, ...turn, ...get(3), ...i32(1), 0x6b, ...tee(3), 0x0d, 0, 0x0b];
  return moduleOf(4, 1, [...vector.const(3), ...set(factor), ...loop], { memory: true, result: false });
}
