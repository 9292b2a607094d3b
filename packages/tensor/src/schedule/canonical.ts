import { compositeDefinition } from "../graph/composites.js";
import type { Device } from "../graph/device.js";
import { bufferOf, realizedStorage } from "../graph/live.js";
import { inputsOf, type Node, topological, withInputs } from "../graph/node.js";
import { GraphBuilder, type NumberedGraph, orderOf, pruned } from "../graph/numbered.js";
import type { Storage } from "../graph/storage.js";
import { Tensor } from "../graph/tensor.js";
import { untracked } from "../graph/unread.js";
import { type Forms, WordLists } from "../graph/words.js";
import { isNative } from "./native.js";
import { type Pair, pairsIn } from "./pair.js";
import { mayBeSimpler, simplify } from "./simplify.js";
import type { LiveGraph } from "./structure.js";
import { work } from "./work.js";

/**
 * The graph that is scheduled: equal subgraphs shared, detach and neutral operations gone, composites that the backend has no kernel for
 * replaced by their definition, and pairs of composites by the one that does the work of both. Its roots are in order.
 */
export function canonicalize(live: LiveGraph, device: Device, forms: Forms): NumberedGraph {
  return new Canon(device, forms).graph(live);
}

/** The canonical graph as it is made. */
class Canon {
  /** For each node its form and the numbers of its inputs. */
  readonly #table = new WordLists();
  readonly #builder = new GraphBuilder();
  readonly #numbers = new Map<Node, number>();
  readonly #storages = new Map<Storage, number>();
  readonly #decomposed = new Map<Node, readonly Node[]>();
  /** What nodes of definitions and bodies are in the canonical graph. */
  readonly #inner = new Map<Node, Node>();

  constructor(
    readonly device: Device,
    readonly forms: Forms,
  ) {}

  graph({ graph, storages }: LiveGraph): NumberedGraph {
    const { joint, after } = pairsIn(graph, this.device.backend);
    const order = orderOf(graph, graph.roots, after);
    work.nodes += order.length;
    /** The canonical number of each node. */
    const made = new Int32Array(graph.count);
    for (let i = 0; i < order.length; i++) {
      const number = order[i] as number; // within bounds
      const node = graph.node(number);
      const storage = storages.get(number);
      const pair = storage || joint.size === 0 ? undefined : joint.get(node.op === "output" ? graph.input(number) : number);
      if (storage) made[number] = this.#leaf(bufferOf(storage, node));
      else if (pair) made[number] = this.#paired(node, pair, made);
      else made[number] = this.#rebuilt(graph, number, made);
    }
    return pruned(this.#builder.all(graph.roots.map((root) => made[root] as number)));
  }

  /** The number of a node over the canonical forms of its inputs. */
  #rebuilt(graph: NumberedGraph, number: number, made: Int32Array): number {
    const { starts, inputs } = graph;
    const node = graph.node(number);
    const [start, end] = [starts[number] as number, starts[number + 1] as number];
    const form = graph.forms[number] as number;
    const hasForm = node.op !== "composite" || !node.bodies;
    if (hasForm) {
      // What is there already is as simple as it can be.
      this.#words(form, inputs, start, end, made);
      const found = this.#table.find();
      if (found >= 0) return found;
    }
    let isSame = true;
    const canonical: Node[] = [];
    const given = inputsOf(node);
    for (let edge = start; edge < end; edge++) {
      const input = this.#builder.nodes[made[inputs[edge] as number] as number] as Node;
      canonical.push(input);
      if (input !== given[edge - start]) isSame = false;
    }
    const rebuilt = isSame ? node : withInputs(node, canonical);
    if (!hasForm) return this.#numberOf(this.#made(rebuilt));
    const simpler = mayBeSimpler(rebuilt) ? this.#replaced(rebuilt) : null;
    if (simpler) return this.#numberOf(this.#known(simpler));
    this.#words(form, inputs, start, end, made);
    const added = this.#table.close();
    if (added < this.#builder.count) return added;
    for (let edge = start; edge < end; edge++) this.#builder.input(made[inputs[edge] as number] as number);
    return this.#close(rebuilt, form);
  }

  #words(form: number, inputs: Int32Array, start: number, end: number, made: Int32Array): void {
    const { words } = this.#table;
    words.push(form);
    for (let edge = start; edge < end; edge++) words.push(made[inputs[edge] as number] as number);
  }

  #paired(node: Node, { both, inputs, shift }: Pair, made: Int32Array): number {
    const composite = this.#made(
      withInputs(
        both,
        inputs.map((input) => this.#builder.nodes[made[input] as number] as Node),
      ),
    );
    if (node.op !== "output") return this.#numberOf(composite);
    return this.#numberOf(this.make({ ...node, of: composite as typeof node.of, index: shift + node.index }));
  }

  #numberOf(node: Node): number {
    return this.#numbers.get(node) as number; // canonical nodes have one
  }

  /** Nodes of definitions and bodies, whose inputs are canonical or among them. */
  #visit(from: readonly Node[]): Node[] {
    const known = (node: Node): Node | undefined => (this.#numbers.has(node) ? node : this.#inner.get(node));
    const order = topological(from, (node) => (known(node) ? [] : inputsOf(node)));
    work.nodes += order.length;
    for (const node of order) {
      if (known(node)) continue;
      const storage = realizedStorage(node);
      const inputs = inputsOf(node).map((input) => known(input) as Node); // inputs come first
      this.#inner.set(
        node,
        storage ? (this.#builder.nodes[this.#leaf(bufferOf(storage, node))] as Node) : this.#made(withInputs(node, inputs)),
      );
    }
    return from.map((node) => known(node) as Node);
  }

  /** A node over canonical inputs. */
  #made(node: Node): Node {
    return this.make(node.op === "composite" && node.bodies ? { ...node, bodies: this.#visit(node.bodies) } : node);
  }

  #leaf(node: Node & { readonly op: "buffer" }): number {
    let storage = this.#storages.get(node.storage);
    if (storage === undefined) this.#storages.set(node.storage, (storage = this.#storages.size));
    const form = this.forms.ofLeaf(node);
    this.#table.words.push(form, storage);
    return this.#add(node, form);
  }

  #intern(node: Node, form: number): Node {
    const { words } = this.#table;
    words.push(form);
    for (const input of inputsOf(node)) words.push(this.#numberOf(input));
    return this.#builder.nodes[this.#add(node, form)] as Node;
  }

  /** The number of the node whose words were pushed to the table. */
  #add(node: Node, form: number): number {
    const number = this.#table.close();
    if (number < this.#builder.count) return number;
    if (node.op !== "buffer") for (const input of inputsOf(node)) this.#builder.input(this.#numberOf(input));
    return this.#close(node, form);
  }

  /** The number of a new node, whose inputs the builder was given. */
  #close(node: Node, form: number): number {
    const number = this.#builder.close(node, form);
    this.#numbers.set(node, number);
    return number;
  }

  /** A node over canonical inputs, as simple as it can be said. */
  readonly make = (node: Node): Node => {
    const replaced = this.#replaced(node);
    return replaced ? this.#known(replaced) : this.#intern(node, this.forms.of(node));
  };

  /** What says a node in less: canonical, or to be made so. */
  #known(replaced: Node): Node {
    return this.#numbers.has(replaced) ? replaced : this.make(replaced);
  }

  #replaced(node: Node): Node | null {
    if (node.op === "detach") return node.x;
    if (node.op === "output" && !isNative(node.of, this.device.backend)) return this.#definition(node.of)[node.index] ?? null;
    return simplify(node, this.make);
  }

  /** The results of a composite in terms of other operations. */
  #definition(node: Node & { op: "composite" }): readonly Node[] {
    let results = this.#decomposed.get(node);
    if (!results) {
      const { name, inputs, attributes, bodies } = node;
      const made = untracked(() =>
        compositeDefinition(name).decompose(
          inputs.map((input) => new Tensor(input, this.device)),
          attributes,
          bodies,
        ),
      );
      results = this.#visit(made.map((t) => t.node));
      this.#decomposed.set(node, results);
    }
    return results;
  }
}

/**
 * True when the device computes `t`, a result of a composite such as `attention`, with a kernel of its own for these shapes; otherwise
 * primitives compute it.
 */
export function hasOwnKernel({ node, device }: Tensor): boolean {
  return node.op === "output" && isNative(node.of, device.backend);
}
