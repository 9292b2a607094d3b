/** Rendering went beyond its budget. */
export class RenderLimit extends Error {}

/** Expressions and blocks within one another, calls of macros included. Templates of models have some dozen. */
const deepest = 500;

/** What rendering may cost: every node that is evaluated, every element gone through and every eight characters copied are a step, paid before. */
export class Meter {
  #left: number;
  #depth = 0;

  constructor(steps: number) {
    this.#left = steps;
  }

  /** Pays for steps. Throws RenderLimit where there are not as many left. */
  readonly charge = (steps: number): void => {
    this.#left -= steps;
    // NaN too: sizes are of the template's own making.
    if (!(this.#left >= 0)) throw new RenderLimit("it takes too many steps");
  };

  enter(): void {
    this.charge(1);
    if (++this.#depth > deepest) throw new RenderLimit(`it goes more than ${deepest} expressions deep`);
  }

  leave(): void {
    this.#depth--;
  }
}
