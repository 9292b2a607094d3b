import {
  attentionBackward,
  bodyArgument,
  compositeDefinition,
  conv2dInputGradient,
  conv2dWeightGradient,
  convolved,
  linearCrossEntropyBackward,
  type Node,
  ones,
  type Tensor,
  zeros,
} from "@lowrank/tensor";
import { type CompositeNode, type Flow, handle } from "./rule.js";

/**
 * Sends gradients into a composite's inputs, given those of its results (null where none arrives). Returns false where it does not
 * know the case, which is then differentiated through the composite's decomposition.
 */
type CompositeRule = (node: CompositeNode, dys: readonly (Tensor | null)[], flow: Flow) => boolean;

/** Another result of the composite itself, saved by the forward pass. */
function result(node: CompositeNode, index: number, flow: Flow): Tensor {
  const { shape = [], dtype = "f32" } = node.outputs[index] ?? {};
  return handle({ op: "output", of: node, index, shape, dtype }, flow);
}

/** Sends gradients[i] into inputs[i]. */
function send(inputs: readonly Node[], gradients: readonly (Tensor | null | undefined)[], flow: Flow): void {
  for (const [i, input] of inputs.entries()) {
    const gradient = gradients[i];
    if (gradient) flow.into(input, () => gradient);
  }
}

/** True where a gradient goes into what a body captured: that is summed over all elements, which no kernel keeps. */
function capturesNeed({ inputs, attributes }: CompositeNode, flow: Flow): boolean {
  return inputs.slice(inputs.length - Number(attributes["captures"] ?? 0)).some((input) => flow.needs(input));
}

/** The bodies of a composite's gradient: each of its own, and the derivative by argument 0. */
function withSlopes({ bodies = [] }: CompositeNode, { device, between }: Flow): Node[] {
  return bodies.flatMap((body) => {
    const element = bodyArgument(body);
    const [slope] = element ? between([body], [ones(body.shape, { device })], [element]) : [];
    return [body, slope?.node ?? zeros(body.shape, { device }).node];
  });
}

/**
 * Inputs of `attentionBackward` with a gradient of the logsumexp in them. Scores have the gradient P (dOut · v − dOut · out + dLogsumexp): as
 * if values had one more number, 0, of which the result is −1 and has this gradient. All are widened alike, by as much as vectors have.
 */
function withLogsumexp(
  [queries, keys, values, out, logsumexp, dOut]: readonly [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
  dLogsumexp: Tensor,
): Tensor[] {
  const widened = (x: Tensor, before: number, after: number, value = 0): Tensor =>
    x.pad(
      [
        [0, 0],
        [0, 0],
        [0, 0],
        [before, after],
      ],
      value,
    );
  const own = out.shape[3] ?? 0;
  const slope = widened(dLogsumexp.unsqueeze(3), own, 3);
  return [
    widened(queries, 0, 4),
    widened(keys, 0, 4),
    widened(values, 0, 4),
    widened(out, 0, 4, -1),
    logsumexp,
    widened(dOut, 0, 4).add(slope),
  ];
}

const rules: Readonly<Record<string, CompositeRule>> = {
  attention(node, [dOut, dLogsumexp], flow) {
    if (!dOut || capturesNeed(node, flow)) return false;
    const [queries, keys, values, ...more] = node.inputs.map((input) => handle(input, flow));
    if (!queries || !keys || !values) return false;
    const own = [queries, keys, values, result(node, 0, flow), result(node, 1, flow), dOut] as const;
    const gradients = (inputs: readonly Tensor[]): Tensor[] => attentionBackward(inputs, node.attributes, withSlopes(node, flow));
    if (!dLogsumexp) send(node.inputs, gradients([...own, ...more]), flow);
    else {
      const widths = [queries, keys, values].map((x) => x.shape[3] ?? 0);
      const wide = gradients([...withLogsumexp(own, dLogsumexp), ...more]);
      send(
        node.inputs,
        wide.map((gradient, i) => gradient.narrow(3, 0, widths[i] ?? 0)),
        flow,
      );
    }
    return true;
  },
  conv2d(node, [dy], flow) {
    const [x, weight] = node.inputs;
    if (!dy || !x || !weight) return false;
    flow.into(x, () => conv2dInputGradient(dy, handle(weight, flow), x.shape, node.attributes));
    flow.into(weight, () => conv2dWeightGradient(handle(x, flow), dy, node.attributes));
    return true;
  },
  conv2dWeightGradient(node, [dWeight], flow) {
    const [x, dy] = node.inputs;
    if (!dWeight || !x || !dy) return false;
    flow.into(x, () => conv2dInputGradient(handle(dy, flow), dWeight, x.shape, node.attributes));
    flow.into(dy, () => convolved(handle(x, flow), dWeight, node.attributes));
    return true;
  },
  linearCrossEntropy(node, [dLoss, dLogsumexp], flow) {
    if (!dLoss || dLogsumexp || capturesNeed(node, flow)) return false;
    const [hidden, weight] = node.inputs;
    if (!hidden || !weight) return false;
    const given = node.inputs.map((input) => handle(input, flow));
    const inputs = [...given.slice(0, 3), result(node, 1, flow), dLoss, ...given.slice(3)];
    // A frozen head's gradient, as large as the head, is never recorded.
    send([hidden, weight], linearCrossEntropyBackward(inputs, flow.needs(weight), withSlopes(node, flow)), flow);
    return true;
  },
};

/** The rule of its name where there is one, else the gradient of what the composite decomposes into: so higher derivatives work. */
export function composite(node: CompositeNode, dys: readonly (Tensor | null)[], flow: Flow): void {
  if (rules[node.name]?.(node, dys, flow)) return;
  const inputs = node.inputs.map((input) => handle(input, flow));
  const { decompose, isElementwise } = compositeDefinition(node.name);
  const results = decompose(inputs, node.attributes, node.bodies);
  const wanted = [...new Set(node.inputs)].filter((input) => flow.needs(input));
  const [dy] = dys;
  const through = (gradients: readonly (Tensor | null)[]): (Tensor | null)[] =>
    flow.between(
      results.map((t) => t.node),
      gradients,
      wanted,
    );
  if (isElementwise && dy) {
    const slopes = through([ones(dy.shape, { device: flow.device })]);
    send(
      wanted,
      slopes.map((slope) => slope && dy.mul(slope)),
      flow,
    );
  } else send(wanted, through(dys), flow);
}
