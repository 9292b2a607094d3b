import { changeSurroundings, mixed, type Tensor } from "@lowrank/tensor";

/** Learned keys and values that stand in front of a layer's own (Li & Liang 2021); each [1 or batch, kvHeads, length, headDim]. */
export interface KeyValuePrefix {
  /** Positions that it takes; the text's own begin after them. */
  readonly length: number;
  /** One pair a layer; called once a forward pass, so that an encoder behind it runs once. */
  layers(): readonly { readonly keys: Tensor; readonly values: Tensor }[];
}

/** Learned embeddings that stand in front of the text's own (Lester et al. 2021): f32 [length, width]. */
export interface VirtualPrompt {
  readonly length: number;
  embeddings(): Tensor;
}

const numbers = new WeakMap<object, number>();
let nextNumber = 1;

function numberOf(thing: object | null): number {
  if (!thing) return 0;
  const number = numbers.get(thing) ?? nextNumber++;
  numbers.set(thing, number);
  return number;
}

/** Where prefix and prompt methods enter a model; empty in a plain one. Compiled functions notice a change. */
export class VirtualTokens {
  #prefix: KeyValuePrefix | null = null;
  #prompt: VirtualPrompt | null = null;
  #state = 0;

  get prefix(): KeyValuePrefix | null {
    return this.#prefix;
  }

  set prefix(value: KeyValuePrefix | null) {
    this.#prefix = value;
    this.#changed();
  }

  /** Logits and hidden states have its positions in front. */
  get prompt(): VirtualPrompt | null {
    return this.#prompt;
  }

  set prompt(value: VirtualPrompt | null) {
    this.#prompt = value;
    this.#changed();
  }

  /** Positions of the context that both take. */
  get length(): number {
    return (this.#prefix?.length ?? 0) + (this.#prompt?.length ?? 0);
  }

  #changed(): void {
    const isPlain = !this.#prefix && !this.#prompt;
    const state = isPlain ? 0 : mixed(numberOf(this), numberOf(this.#prefix), numberOf(this.#prompt));
    changeSurroundings(this.#state, state);
    this.#state = state;
  }
}
