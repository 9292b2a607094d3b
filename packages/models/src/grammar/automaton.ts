import { type Bytes, type Expression, type Repeat, repeat, satisfiable } from "./expression.js";

/** What is still to come: an expression, and what comes behind it. Equal ones are one object. */
interface Frame {
  readonly id: number;
  readonly top: Expression | null;
  readonly below: Frame | null;
  /** Frames on top of this one. */
  readonly above: Map<Expression, Frame>;
  /** The frames with a byte on top, or nothing at all, that this one stands for; null where nobody asked yet. */
  opened: readonly Frame[] | null;
  /** The same for all tokens: with counters no larger than a token can count. Itself where none is. */
  readonly near: Frame;
}

/** All ways in which the text so far may go on. Equal ones are one object. */
export interface State {
  /** Whether the text is complete. */
  readonly accepts: boolean;
  /** Whether nothing can follow. */
  readonly isEnd: boolean;
  /** What may come, the next byte first. */
  readonly ways: readonly Frame[];
  /** A state after which the same tokens may come; one for all those that only differ in counters too large for a token. */
  readonly near: State;
  /** The state after each byte; null where it does not fit, undefined where nobody asked yet. */
  readonly next: (State | null | undefined)[];
  /** The states after those of the ways that a byte fits: far fewer than bytes. */
  readonly after: Map<string, State>;
}

/** Reads bytes by a grammar: a stack of expressions for each way in which the text so far fits it. */
export class Automaton {
  readonly start: State;
  readonly #fits: ReadonlySet<Expression>;
  readonly #bottom: Frame;
  readonly #states = new Map<string, State>();
  readonly #repeats = new Map<Expression, Map<number, Map<number, Repeat>>>();
  #frames = 0;

  /** `longest` is the number of bytes of the longest token. */
  constructor(
    grammar: Expression,
    readonly longest: number,
  ) {
    this.#fits = satisfiable(grammar);
    this.#bottom = this.#frame(null, null, null);
    this.start = this.#state(this.#fits.has(grammar) ? this.#opened(this.#push(grammar, this.#bottom)) : []);
  }

  /** The state after a byte, or null where it does not fit. */
  advance(state: State, byte: number): State | null {
    const known = state.next[byte];
    if (known !== undefined) return known;
    const fitting = state.ways.filter(({ top }) => (top as Bytes).has[byte]);
    const next = fitting.length === 0 ? null : this.#after(state, fitting);
    state.next[byte] = next;
    return next;
  }

  #after(state: State, fitting: readonly Frame[]): State {
    const key = fitting.map(({ id }) => id).join();
    return entry(state.after, key, () => this.#state(fitting.flatMap(({ below }) => (below ? this.#opened(below) : []))));
  }

  /** The frames with a byte on top, or nothing at all, that a frame stands for. */
  #opened(start: Frame): readonly Frame[] {
    if (start.opened) return start.opened;
    const ways: Frame[] = [];
    const seen = new Set<Frame>();
    const waiting = [start];
    for (let frame = waiting.pop(); frame; frame = waiting.pop()) {
      if (seen.has(frame)) continue;
      seen.add(frame);
      const { top, below } = frame;
      if (!top || !below || top.kind === "bytes") {
        ways.push(frame);
        continue;
      }
      switch (top.kind) {
        case "sequence":
          waiting.push(top.parts.reduceRight((rest, part) => this.#push(part, rest), below));
          break;
        case "choice":
          for (const option of top.options) if (this.#fits.has(option)) waiting.push(this.#push(option, below));
          break;
        case "reference":
          waiting.push(this.#push(top.target(), below));
          break;
        case "repeat":
          if (top.min === 0) waiting.push(below);
          if (top.max > 0 && this.#fits.has(top.item)) {
            const rest = this.#repeat(top.item, Math.max(0, top.min - 1), top.max - 1);
            waiting.push(this.#push(top.item, rest.max === 0 ? below : this.#push(rest, below)));
          }
      }
    }
    start.opened = ways;
    return ways;
  }

  #repeat(item: Expression, min: number, max: number): Repeat {
    const byMin = entry(this.#repeats, item, () => new Map<number, Map<number, Repeat>>());
    const byMax = entry(byMin, min, () => new Map<number, Repeat>());
    return entry(byMax, max, () => repeat(item, min, max));
  }

  #push(top: Expression, below: Frame): Frame {
    return entry(below.above, top, () => {
      const near = this.#near(top);
      // A counter that no token exhausts is as good as a smaller one of that kind.
      return this.#frame(top, below, near === top && below.near === below ? null : this.#push(near, below.near));
    });
  }

  #near(top: Expression): Expression {
    if (top.kind !== "repeat") return top;
    const most = this.longest + 1;
    const min = Math.min(top.min, most);
    const max = top.max === Number.POSITIVE_INFINITY ? top.max : Math.min(top.max, most);
    return min === top.min && max === top.max ? top : this.#repeat(top.item, min, max);
  }

  #frame(top: Expression | null, below: Frame | null, near: Frame | null): Frame {
    const frame = { id: this.#frames++, top, below, above: new Map<Expression, Frame>(), opened: null };
    return Object.assign(frame, { near: near ?? (frame as Frame) });
  }

  #state(ways: Iterable<Frame>): State {
    const sorted = [...new Set(ways)].sort((a, b) => a.id - b.id);
    const key = sorted.map(({ id }) => id).join();
    const known = this.#states.get(key);
    if (known) return known;
    const open = sorted.filter(({ top }) => top !== null);
    const state = { accepts: open.length < sorted.length, isEnd: open.length === 0, ways: open, next: [], after: new Map<string, State>() };
    const isNear = sorted.every((frame) => frame.near === frame);
    const made = Object.assign(state, { near: isNear ? (state as unknown as State) : this.#state(sorted.map(({ near }) => near)) });
    this.#states.set(key, made);
    return made;
  }
}

/** The value of a key, made where there is none. */
function entry<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}
