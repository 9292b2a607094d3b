/** Gives numbers that come in any parts on in whole units, but for what is left at the end. */
export class Units {
  #rest: Float32Array = new Float32Array(0);

  constructor(
    readonly unit: number,
    /** Called with whole units; what it is given is its own until it returns. */
    readonly use: (values: Float32Array) => void,
  ) {}

  add(values: Float32Array): void {
    let from = 0;
    if (this.#rest.length > 0) {
      from = Math.min(this.unit - this.#rest.length, values.length);
      this.#rest = joined(this.#rest, values.subarray(0, from));
      if (this.#rest.length < this.unit) return;
      this.use(this.#rest);
      this.#rest = new Float32Array(0);
    }
    const whole = values.length - ((values.length - from) % this.unit);
    if (whole > from) this.use(values.subarray(from, whole));
    this.#rest = values.slice(whole);
  }

  /** Gives the rest on, if there is one. */
  end(): void {
    if (this.#rest.length > 0) this.use(this.#rest);
    this.#rest = new Float32Array(0);
  }
}

function joined(a: Float32Array, b: Float32Array): Float32Array {
  const both = new Float32Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
