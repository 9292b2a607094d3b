import { nn } from "@lowrank/autograd";
import { type Generator, type Tensor, zeros } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { type AdaptableModel, type AdaptableModule, type BlockNames, tokenEmbedding, type Wrapper } from "../targeting/model.js";
import { throughDense } from "./encoder.js";
import { type Attachment, defineMethod, type Method, onEach } from "./method.js";
import { bottleneckFromPeft, bottleneckToPeft } from "./peft-bottleneck.js";

/** The nonlinearities, by AdapterHub's names (`non_linearity`). */
const activations = {
  relu: (x: Tensor): Tensor => x.relu(),
  swish: (x: Tensor): Tensor => x.silu(),
  gelu: (x: Tensor): Tensor => x.gelu("none"),
  gelu_new: (x: Tensor): Tensor => x.gelu("tanh"),
  tanh: (x: Tensor): Tensor => x.tanh(),
  linear: (x: Tensor): Tensor => x,
} as const;

const inputs = ["sublayer", "sum", "residual", "norm"] as const;

/** How a bottleneck adapter is set up. Names in parentheses are AdapterHub's. */
export interface BottleneckOptions {
  /** At every block's attention (`mh_adapter`). */
  readonly attention: boolean;
  /** At every block's MLP (`output_adapter`). */
  readonly mlp: boolean;
  /** The model's width over the bottleneck's (`reduction_factor`). Houlsby and Pfeiffer 16, parallel 2. */
  readonly reductionFactor: number;
  /** The bottleneck's width itself, in place of `reductionFactor` (`bottleneck_size`). */
  readonly bottleneckSize?: number;
  /** Between the two layers (`non_linearity`). */
  readonly activation: keyof typeof activations;
  /** What the adapter's output is multiplied by. 1, and 4 for parallel. */
  readonly scaling: number;
  /**
   * What the adapter reads: the sublayer's output f, the "sum" h + f with the residual stream h at the sublayer's start, the "residual"
   * h, or the "norm" of h, as the sublayer itself does.
   */
  readonly input: (typeof inputs)[number];
  /**
   * First values (`init_weights`): "mam_adapter", up-projection and biases 0, so that the output is exactly the base's; or "bert", weights
   * normal with deviation 0.02, near the base's. Default "mam_adapter".
   */
  readonly init: "mam_adapter" | "bert";
}

/** A sublayer of a block: f = sublayer(norm(h)), and h + f goes on. */
export interface BottleneckPlace {
  readonly sublayer: AdaptableModule;
  /** Null where the sublayer reads h itself. */
  readonly norm: AdaptableModule | null;
  readonly width: number;
}

function checked(options: BottleneckOptions, width: number): BottleneckOptions {
  const { reductionFactor, bottleneckSize, activation, scaling, input, init, attention, mlp } = options;
  if (!(reductionFactor > 0) || width / reductionFactor < 1)
    throw new AdapterError(
      `reductionFactor is ${reductionFactor}, which leaves nothing of the model's width ${width}. Use a number from 1 to ${width}.`,
      ["reductionFactor"],
    );
  if (bottleneckSize !== undefined && (!Number.isInteger(bottleneckSize) || bottleneckSize < 1))
    throw new AdapterError(`bottleneckSize is ${bottleneckSize}. It is a whole number of at least 1.`, ["bottleneckSize"]);
  if (!Object.hasOwn(activations, activation))
    throw new AdapterError(`activation is "${String(activation)}". Use one of ${Object.keys(activations).join(", ")}.`, ["activation"]);
  if (!Number.isFinite(scaling)) throw new AdapterError(`scaling is ${scaling}. It is a number; 1 is usual, 4 in parallel.`, ["scaling"]);
  if (!inputs.includes(input)) throw new AdapterError(`input is "${String(input)}". Use one of ${inputs.join(", ")}.`, ["input"]);
  if (init !== "mam_adapter" && init !== "bert")
    throw new AdapterError(`init is "${String(init)}". Use "mam_adapter" or "bert".`, ["init"]);
  if (!attention && !mlp)
    throw new AdapterError("attention and mlp are both false, so there is no place for an adapter. Switch one of them on.", [
      "attention",
      "mlp",
    ]);
  return options;
}

/** The bottleneck's width in a model of this width; rounded down, as AdapterHub does. */
export function bottleneckSizeOf({ bottleneckSize, reductionFactor }: BottleneckOptions, width: number): number {
  return bottleneckSize ?? Math.floor(width / reductionFactor);
}

/** The chosen sublayers under AdapterHub's names. Throws AdapterError for a model that does not say where its sublayers are. */
function places(model: AdaptableModel, { attention, mlp }: BottleneckOptions): Map<string, BottleneckPlace> {
  const { blocks } = model;
  if (!blocks)
    throw new AdapterError(
      "The model does not say where its blocks' attention and MLP are (blocks), so a bottleneck has no place. Use a method that goes on layers.",
    );
  const modules = model.namedModules();
  const width = widthOf(model);
  const found = new Map<string, BottleneckPlace>();
  const add = (block: BlockNames, place: string, which: "attention" | "mlp"): void => {
    const [name, normName] = [block[which], block[`${which}Norm`]];
    if (name === null) return;
    const sublayer = modules.get(name);
    const norm = normName === null ? null : modules.get(normName);
    if (!sublayer || norm === undefined)
      throw new AdapterError(`The model has no module ${name} or ${normName}. Correct its list of blocks.`);
    found.set(`${block.name}.${place}`, { sublayer, norm, width });
  };
  for (const block of blocks) {
    if (attention) add(block, "attention_adapters", "attention");
    if (mlp) add(block, "output_adapters", "mlp");
  }
  return found;
}

function widthOf(model: AdaptableModel): number {
  return tokenEmbedding(model)[1].weight.sizeAt(1);
}

const down = "adapters.default.adapter_down.0";
const up = "adapters.default.adapter_up";

function parameters(width: number, options: BottleneckOptions, generator: Generator): Readonly<Record<string, Tensor>> {
  const size = bottleneckSizeOf(options, width);
  const { device } = generator;
  const isBert = options.init === "bert";
  return {
    [`${down}.weight`]: isBert ? generator.normal([size, width], 0, 0.02) : nn.kaimingUniform([size, width], { generator }),
    [`${down}.bias`]: zeros([size], { device }),
    [`${up}.weight`]: isBert ? generator.normal([width, size], 0, 0.02) : zeros([width, size], { device }),
    [`${up}.bias`]: zeros([width], { device }),
  };
}

function attached({ sublayer, norm, width }: BottleneckPlace, options: BottleneckOptions, generator: Generator): Attachment {
  const trained = parameters(width, options, generator);
  const activation = activations[options.activation];
  const bypass = (x: Tensor): Tensor => throughDense(trained, up, activation(throughDense(trained, down, x))).mul(options.scaling);
  // The residual stream is what the norm reads; the sublayer comes right after it.
  let stream: Tensor | null = null;
  const watching: Wrapper = (h, next) => {
    stream = h;
    return next(h);
  };
  const residual = (): Tensor => {
    const h = stream;
    // Not kept: a handle on a forward pass that is over would keep its graph alive.
    stream = null;
    if (h) return h;
    throw new AdapterError(
      "A sublayer ran without its norm before it, so the adapter does not know the residual stream. Run whole blocks.",
    );
  };
  const beside: Wrapper = (x, next) => {
    const f = next(x);
    const h = norm ? residual : () => x;
    const read = { sublayer: () => f, sum: () => h().add(f), residual: h, norm: () => x } as const;
    return f.add(bypass(read[options.input]()));
  };
  const needsStream = options.input === "sum" || options.input === "residual";
  return {
    parameters: trained,
    enable: () => {
      const removers = [sublayer.use(beside), ...(needsStream && norm ? [norm.use(watching)] : [])];
      return () => {
        for (const remove of removers) remove();
      };
    },
  };
}

/**
 * A bottleneck adapter: U s(D x), two dense layers with biases and a nonlinearity between them, added to a sublayer's output inside the
 * residual connection. Keys are AdapterHub's, in a file format of our own (peft_type "BOTTLENECK"; PEFT has none).
 */
export function bottleneckMethod(kind: string, defaults: Omit<BottleneckOptions, "init">): Method<BottleneckOptions, BottleneckPlace> {
  return defineMethod(kind, {
    options: (given, model) => checked({ init: "mam_adapter", ...defaults, ...given }, widthOf(model)),
    places,
    attach: onEach((place, options, { generator }) => attached(place, options, generator)),
    fileName: (place, key) => `${place}.${key}`,
    unmergeable:
      "between its two layers stands a nonlinearity, which no weight of the base can hold. Keep the adapter beside the model, or train lora if merging matters.",
    toPeft: (options, chosen) => bottleneckToPeft(kind, options, chosen),
    fromPeft: (fields) => bottleneckFromPeft(kind, fields),
  });
}
