import { compositeDefinition } from "./composites.js";
import { evaluate, type Values } from "./definitions.js";
import type { Device } from "./device.js";
import { inputsOf, type Node, topological } from "./node.js";
import type { Storage } from "./storage.js";
import { Tensor } from "./tensor.js";
import { untracked } from "./unread.js";

/**
 * Evaluates graphs node by node in float64, straight from each primitive's definition: no fusion, no views, no reuse of memory.
 * What every backend and every scheduling decision is tested against. `stored` says which nodes' values lie in memory, and
 * `read` reads it.
 */
export function interpret(
  roots: readonly Node[],
  device: Device,
  stored: ReadonlyMap<Node, Storage>,
  read: (storage: Storage) => ArrayLike<number>,
): Values[] {
  const values = new Map([...stored].map(([node, storage]) => [node, Float64Array.from(read(storage))]));
  return interpretFrom(values, roots, device, read);
}

/** The roots' values where those of some nodes are known. */
function interpretFrom(
  values: Map<Node, Values>,
  roots: readonly Node[],
  device: Device,
  read: (storage: Storage) => ArrayLike<number>,
): Values[] {
  const outputs = new Map<Node, readonly Values[]>();
  const get = (node: Node): Values => {
    const found = values.get(node);
    if (!found) throw new Error(`interpret: ${node.op} was not evaluated.`);
    return found;
  };
  for (const node of topological(roots, (node) => (values.has(node) ? [] : inputsOf(node)))) {
    if (values.has(node)) continue;
    if (node.op === "composite") {
      const inputs = node.inputs.map(({ shape, dtype }, index): Node => ({ op: "argument", index, shape, dtype }));
      const known = new Map(inputs.map((input, i) => [input, get(node.inputs[i] as Node)]));
      const results = untracked(() =>
        compositeDefinition(node.name).decompose(
          inputs.map((input) => new Tensor(input, device)),
          node.attributes,
          node.bodies,
        ),
      );
      const found = interpretFrom(
        known,
        results.map((result) => result.node),
        device,
        read,
      );
      outputs.set(node, found);
      values.set(node, found[0] ?? new Float64Array());
    } else if (node.op === "output") {
      values.set(node, outputs.get(node.of)?.[node.index] ?? new Float64Array());
    } else values.set(node, evaluate(node, { get, read }));
  }
  return roots.map(get);
}
