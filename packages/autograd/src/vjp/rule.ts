import { type Device, type Node, Tensor } from "@lowrank/tensor";

/** A node of one op. */
export type NodeOf<Op extends Node["op"]> = Node & { readonly op: Op };

/** A composite primitive's node. */
export type CompositeNode = NodeOf<"composite">;

/** Where a rule sends the gradients of its node's inputs. */
export interface Flow {
  readonly device: Device;
  /** True when something asked for lies behind the node. */
  needs(node: Node): boolean;
  /** Adds to a node's gradient. `make` runs only where the gradient is needed, so that nothing else is recorded. */
  into(node: Node, make: () => Tensor): void;
  /** Adds to the gradient of one result of a composite. */
  intoResult(composite: CompositeNode, index: number, dy: Tensor): void;
  /** Gradients of `inputs` through the graph between them and `roots`, which have the gradients `dys`; null where none arrives. */
  between(roots: readonly Node[], dys: readonly (Tensor | null)[], inputs: readonly Node[]): (Tensor | null)[];
}

/**
 * A vector-Jacobian product: given y's node and dL/dy in y's shape, f32, sends dL/dx into each input x. Rules record ordinary ops, so
 * gradients can be differentiated again.
 */
export type Rule<Op extends Node["op"]> = (node: NodeOf<Op>, dy: Tensor, flow: Flow) => void;

/** A handle on a node. */
export function handle(node: Node, flow: Flow): Tensor {
  return new Tensor(node, flow.device);
}
