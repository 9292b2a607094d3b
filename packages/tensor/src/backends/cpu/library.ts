import type { BackendCounters } from "../../graph/backend.js";
import type { Template } from "../../kernels/template.js";
import { ModuleBuilder, type ModuleOptions } from "../../kernels/wasm/assembler.js";
import { control } from "../../kernels/wasm/driver.js";
import { ScalarMath } from "../../kernels/wasm/scalar-math.js";
import type { Heap } from "./heap.js";
import type { StepList } from "./steps.js";

/** Writes one kernel function into a module, exported by `name`. */
export type PrintKernel = (module: ModuleBuilder, scalarMath: ScalarMath, name: string) => void;

/**
 * All kernel functions compiled so far, each under a number that is its place in every thread's table. Kernels of several plans that
 * are alike share one function. New ones are gathered and compiled as one module, whose bytes other threads find in the shared memory.
 */
export class KernelLibrary {
  readonly table: WebAssembly.Table = new WebAssembly.Table({ element: "anyfunc", initial: 64 });
  readonly #entries = new Map<string, number>();
  #entryCount = 0;
  #steps = new WeakMap<Template, Map<string, StepList>>();
  #pending: { key: string; entry: number; print: PrintKernel }[] = [];
  /** Where the address of the next module is to be written. */
  #tail: number = control.modules;

  constructor(
    readonly heap: Heap,
    readonly options: ModuleOptions,
    readonly counters: BackendCounters,
  ) {}

  /** The number of the function that `key` describes; `print` writes it if there is none yet. */
  entry(key: string, print: PrintKernel): number {
    const known = this.#entries.get(key);
    if (known !== undefined) return known;
    const entry = this.#entryCount++;
    this.#entries.set(key, entry);
    this.#pending.push({ key, entry, print });
    return entry;
  }

  /** The steps of a template's kernels, by what else they depend on; `make` makes them if there are none yet. */
  steps(template: Template, key: string, make: () => StepList): StepList {
    let known = this.#steps.get(template);
    if (!known) this.#steps.set(template, (known = new Map()));
    let list = known.get(key);
    if (!list) known.set(key, (list = make()));
    return list;
  }

  /** Compiles what `entry` has gathered. Where that fails, all of it is forgotten, to be gathered again by who needs it. */
  publish(): void {
    const pending = this.#pending;
    if (pending.length === 0) return;
    this.#pending = [];
    try {
      this.#compile(pending);
    } catch (error) {
      for (const { key } of pending) this.#entries.delete(key);
      // Steps hold the numbers of functions that are not there.
      this.#steps = new WeakMap();
      throw error;
    }
    this.counters.pipelinesCreated += pending.length;
  }

  #compile(pending: readonly { readonly entry: number; readonly print: PrintKernel }[]): void {
    const module = new ModuleBuilder({ ...this.options, usesTable: true });
    const scalarMath = new ScalarMath(module);
    for (const { entry, print } of pending) print(module, scalarMath, String(entry));
    const bytes = module.bytes();
    const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory: this.heap.memory, table: this.table } });
    for (const [name, value] of Object.entries(instance.exports)) {
      const entry = Number(name);
      if (entry >= this.table.length) this.table.grow(Math.max(entry + 1 - this.table.length, this.table.length));
      this.table.set(entry, value);
    }
    if (this.options.isShared) this.#share(bytes);
  }

  #share(bytes: Uint8Array): void {
    const address = this.heap.allocate(8 + bytes.length);
    this.heap.bytes.set(bytes, address + 8);
    const { words } = this.heap;
    words[address / 4] = 0;
    words[address / 4 + 1] = bytes.length;
    Atomics.store(words, this.#tail / 4, address | 0);
    Atomics.add(words, control.library / 4, 1);
    this.#tail = address;
  }
}
