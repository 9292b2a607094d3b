/** A table from two small whole numbers to one, in flat memory: half a million merges in a few megabytes, looked up without garbage. */
export class PairTable {
  #keys: Int32Array;
  #values: Int32Array;
  #mask: number;
  #size = 0;

  constructor(expected: number) {
    const capacity = 2 ** Math.max(4, Math.ceil(Math.log2(expected * 2 + 1)));
    this.#keys = new Int32Array(2 * capacity).fill(-1);
    this.#values = new Int32Array(capacity);
    this.#mask = capacity - 1;
  }

  /** The value of a pair, or -1. */
  get(a: number, b: number): number {
    const keys = this.#keys;
    for (let slot = hash(a, b) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const key = keys[2 * slot];
      if (key === a && keys[2 * slot + 1] === b) return this.#values[slot] as number;
      if (key === -1) return -1;
    }
  }

  set(a: number, b: number, value: number): void {
    if (this.#size * 2 > this.#mask) this.#grow();
    for (let slot = hash(a, b) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const isFree = this.#keys[2 * slot] === -1;
      if (!isFree && !(this.#keys[2 * slot] === a && this.#keys[2 * slot + 1] === b)) continue;
      if (isFree) this.#size++;
      this.#keys[2 * slot] = a;
      this.#keys[2 * slot + 1] = b;
      this.#values[slot] = value;
      return;
    }
  }

  #grow(): void {
    const [keys, values] = [this.#keys, this.#values];
    this.#keys = new Int32Array(2 * keys.length).fill(-1);
    this.#values = new Int32Array(2 * values.length);
    this.#mask = this.#values.length - 1;
    this.#size = 0;
    for (let slot = 0; slot < values.length; slot++)
      if (keys[2 * slot] !== -1) this.set(keys[2 * slot] as number, keys[2 * slot + 1] as number, values[slot] as number);
  }
}

function hash(a: number, b: number): number {
  let mixed = Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}
