import { changeSurroundings, DeviceError, mixed, Tensor } from "@lowrank/tensor";

/**
 * Middleware around a module's forward function: may change what goes in, what comes out, or not call `next` at all. Adapters are
 * wrappers; without any, a module records exactly its plain graph.
 */
export type Wrapper = (x: Tensor, next: (x: Tensor) => Tensor) => Tensor;

const parameters = new WeakSet<Tensor>();

/** Numbers for wrappers and modules, so that the states of a model can be told apart. */
const numbers = new WeakMap<object, number>();
let nextNumber = 1;

function numberOf(thing: object): number {
  const number = numbers.get(thing) ?? nextNumber++;
  numbers.set(thing, number);
  return number;
}

/** Marks a tensor as a parameter, so that modules that have it as a property list it. torch.nn.Parameter. */
export function parameter(value: Tensor): Tensor {
  parameters.add(value);
  return value;
}

/** True for tensors that `parameter` has marked. */
export function isParameter(value: Tensor): boolean {
  return parameters.has(value);
}

/**
 * A part of a model: a plain class whose own properties are its children (modules, or arrays of them) and its parameters (tensors
 * marked by `parameter`). Property names joined by dots are the names in checkpoints. torch.nn.Module.
 */
export abstract class Module {
  /** Middleware, innermost first. */
  readonly wrappers: Wrapper[] = [];
  /** True while dropout is on; `train` sets it on a whole tree. Off at first, so that a loaded model evaluates. */
  isTraining = false;
  /** The parameters in whose place `replace` put others, by property. */
  readonly #replaced = new Map<string, Tensor>();
  /** What the wrappers, replaced and exchanged parameters and `isTraining` say to `compile`, which records other graphs for other states. */
  #state = 0;
  #isDisposed = false;
  /** How often parameters of its own were exchanged. */
  #exchanges = 0;

  #stateChanged(): void {
    const isPlain = this.wrappers.length === 0 && this.#replaced.size === 0 && !this.isTraining && this.#exchanges === 0;
    const replacing = [...this.#replaced.keys()].map((key) => numberOf(Reflect.get(this, key) as Tensor));
    const state = isPlain
      ? 0
      : mixed(numberOf(this), Number(this.isTraining), this.#exchanges, this.wrappers.length, ...this.wrappers.map(numberOf), ...replacing);
    changeSurroundings(this.#state, state);
    this.#state = state;
  }

  /** Puts a wrapper around this module, outside those that are there; returns the function that takes it off again. */
  use(wrapper: Wrapper): () => void {
    // A wrapper used twice is two entries; each remover takes off its own.
    const entry: Wrapper = (x, next) => wrapper(x, next);
    // The same wrapper put on again is the same state again.
    numbers.set(entry, numberOf(wrapper));
    this.wrappers.push(entry);
    this.#stateChanged();
    return () => {
      const index = this.wrappers.indexOf(entry);
      if (index < 0) return;
      this.wrappers.splice(index, 1);
      this.#stateChanged();
    };
  }

  /**
   * Computes with another tensor in a parameter's place, until the function returned is called. `namedParameters` goes on listing the
   * module's own. Throws TypeError when the module has no such parameter, or when it is replaced already.
   */
  replace(key: string, value: Tensor): () => void {
    const own: unknown = Reflect.get(this, key);
    if (!(own instanceof Tensor) || !parameters.has(own) || this.#replaced.has(key))
      throw new TypeError(`replace: ${this.constructor.name} has no parameter "${key}" in use. Take the other replacement off first.`);
    this.#replaced.set(key, own);
    Reflect.set(this, key, value);
    this.#stateChanged();
    return () => {
      if (Reflect.get(this, key) !== value || !this.#replaced.delete(key)) return;
      Reflect.set(this, key, own);
      this.#stateChanged();
    };
  }

  /** Runs `forward` through the wrappers; what the forward functions of one-input modules call. */
  protected through(x: Tensor, forward: (x: Tensor) => Tensor): Tensor {
    this.checkAlive(x);
    let next = forward;
    for (const wrapper of this.wrappers) {
      const inner = next;
      next = (input) => wrapper(input, inner);
    }
    return next(x);
  }

  /** This module and all below it, by dotted name; this module's own name is "". Modules shared by several parents appear once. */
  namedModules(): Map<string, Module> {
    const found = new Map<string, Module>();
    const seen = new Set<Module>();
    const visit = (module: Module, name: string): void => {
      if (seen.has(module)) return;
      seen.add(module);
      found.set(name, module);
      eachChild(module, (child, at) => visit(child, join(name, at)));
    };
    visit(this, "");
    return found;
  }

  /** Puts another tensor of the same shape in a parameter's place, in this module and all below it, for good: wherever one tensor serves several. */
  exchange(old: Tensor, next: Tensor): void {
    for (const module of this.namedModules().values()) {
      const keys = Object.entries(module).flatMap(([key, value]: [string, unknown]) => (value === old ? [key] : []));
      for (const key of keys) Reflect.set(module, key, next);
      const replaced = [...module.#replaced].filter(([, own]) => own === old);
      for (const [key] of replaced) module.#replaced.set(key, next);
      if (keys.length + replaced.length === 0) continue;
      module.#exchanges++;
      module.#stateChanged();
    }
    if (parameters.has(old)) parameters.add(next);
  }

  /** All parameters by dotted name, in the order of the properties. Tied tensors appear once, under their first name. */
  namedParameters(): Map<string, Tensor> {
    const found = new Map<string, Tensor>();
    const seen = new Set<Tensor>();
    for (const [name, module] of this.namedModules()) {
      for (const [key, current] of Object.entries(module) as [string, unknown][]) {
        const value = module.#replaced.get(key) ?? current;
        if (!(value instanceof Tensor) || !parameters.has(value) || seen.has(value)) continue;
        seen.add(value);
        found.set(join(name, key), value);
      }
    }
    return found;
  }

  /** The values of `namedParameters`. */
  parameters(): Tensor[] {
    return [...this.namedParameters().values()];
  }

  get isDisposed(): boolean {
    return this.#isDisposed;
  }

  /**
   * Gives the memory of this module and of all below it back at once: their parameters, also where others share these, but not what
   * `replace` put in their place. A second call does nothing. Computing with a disposed module throws DeviceError.
   */
  dispose(): void {
    const parameters = this.parameters();
    for (const module of this.namedModules().values()) {
      module.#isDisposed = true;
      module.disposeOthers();
    }
    for (const t of parameters) t.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Gives back what a module holds beside its parameters and the modules below it; nothing, for most. */
  protected disposeOthers(): void {}

  /** Throws DeviceError when the module was disposed; `x` is what it was to compute with. */
  protected checkAlive(x: Tensor): void {
    if (!this.#isDisposed) return;
    throw new DeviceError(
      `This ${this.constructor.name} was used after dispose(), which gave its parameters back. Dispose it after its last use, or load it again.`,
      x.device.name,
    );
  }

  /** Switches dropout on (or off) in this module and all below it. torch.nn.Module.train. */
  train(isTraining = true): this {
    for (const module of this.namedModules().values()) {
      if (module.isTraining === isTraining) continue;
      module.isTraining = isTraining;
      module.#stateChanged();
    }
    return this;
  }
}

function join(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

function eachChild(module: Module, visit: (child: Module, at: string) => void): void {
  for (const key of Object.keys(module)) {
    const value: unknown = Reflect.get(module, key);
    if (value instanceof Module) visit(value, key);
    else if (Array.isArray(value))
      for (let index = 0; index < value.length; index++) if (value[index] instanceof Module) visit(value[index], `${key}.${index}`);
  }
}
