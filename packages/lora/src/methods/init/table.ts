import { nn } from "@lowrank/autograd";
import { type Generator, type Tensor, zeros } from "@lowrank/tensor";
import { AdapterError } from "../../errors.js";
import { olora } from "./olora.js";
import { orthogonal } from "./orthogonal.js";
import { type Factors, pissa, type WeightStart } from "./pissa.js";

/** How a pair starts. */
export interface Init {
  /** What PEFT calls it (`init_lora_weights`). */
  readonly peft: string | boolean;
  /** A [rank, in] and B [out, rank] where neither weights nor data are needed, or until they are there. */
  readonly first: (
    generator: Generator,
    rank: number,
    inFeatures: number,
    outFeatures: number,
  ) => { readonly a: Tensor; readonly b: Tensor };
  /** A and B out of the base's weight, whose product is taken out of the base. */
  readonly fromWeight?: (start: WeightStart) => Factors | Promise<Factors>;
  /** A and B out of W − Q, what quantization took from the weight. The base stays. */
  readonly fromResidual?: (start: WeightStart) => Factors | Promise<Factors>;
  /** True where A comes from the layers' inputs. */
  readonly needsData?: true;
}

/** The first values of a pair by name; true and false as in PEFT's configuration. */
export type InitName =
  | boolean
  | "kaiming"
  | "gaussian"
  | "default"
  | "orthogonal"
  | "pissa"
  | `pissa_niter_${number}`
  | "olora"
  | "loftq"
  | "eva";

const noB = (generator: Generator, outFeatures: number, rank: number): Tensor => zeros([outFeatures, rank], { device: generator.device });

const kaiming: Init["first"] = (generator, rank, inFeatures, outFeatures) => ({
  a: nn.kaimingUniform([rank, inFeatures], { generator }),
  b: noB(generator, outFeatures, rank),
});

/** Every init, one line each, but for the family pissa_niter_N. */
const inits: Readonly<Record<string, Init>> = {
  /** A uniform in ±1/√in, B 0. */
  kaiming: { peft: true, first: kaiming },
  /** A normal with deviation 1/rank, B 0 (Hu et al. 2021, section 4.1). */
  gaussian: {
    peft: "gaussian",
    first: (generator, rank, inFeatures, outFeatures) => ({
      a: generator.normal([rank, inFeatures], 0, 1 / rank),
      b: noB(generator, outFeatures, rank),
    }),
  },
  /** torch.nn.Linear's own values for both, so that training does not start at the base (for tests, says PEFT). */
  default: {
    peft: false,
    first: (generator, rank, inFeatures, outFeatures) => ({
      a: nn.kaimingUniform([rank, inFeatures], { generator }),
      b: nn.kaimingUniform([outFeatures, rank], { generator }),
    }),
  },
  orthogonal: { peft: "orthogonal", first: orthogonal },
  pissa: { peft: "pissa", first: kaiming, fromWeight: pissa },
  olora: { peft: "olora", first: kaiming, fromWeight: olora },
  // For PEFT a pair like any other: with "loftq" in its file it would quantize the base again.
  loftq: { peft: true, first: kaiming, fromResidual: pissa },
  eva: { peft: "eva", first: kaiming, needsData: true },
};

const names: readonly string[] = [...Object.keys(inits), "pissa_niter_<number>"];

const mostPasses = 1000;

function found(name: unknown): Init | undefined {
  if (typeof name === "boolean") return name ? inits["kaiming"] : inits["default"];
  if (typeof name !== "string") return undefined;
  if (Object.hasOwn(inits, name)) return inits[name];
  const passes = /^pissa_niter_(\d+)$/.exec(name)?.[1];
  // Each is a product with the whole weight; PEFT's examples have 4 to 32.
  return passes === undefined || Number(passes) > mostPasses
    ? undefined
    : { peft: name, first: kaiming, fromWeight: (start) => pissa(start, Number(passes)) };
}

/** The init of a name. Throws AdapterError for a name that there is not. */
export function initNamed(name: InitName): Init {
  const init = found(name);
  if (!init) throw new AdapterError(`init is "${String(name)}". Choose among ${names.join(", ")}.`, ["init"]);
  return init;
}

/** Our name of a value of PEFT's `init_lora_weights`, or undefined. */
export function initOfPeft(value: unknown): Exclude<InitName, boolean> | undefined {
  const name = Object.keys(inits).find((key) => inits[key]?.peft === value) ?? value;
  // What PEFT began with LoftQ belongs to the blocks that it made then, which are no part of the file.
  return typeof name === "string" && found(name) && !found(name)?.fromResidual ? (name as Exclude<InitName, boolean>) : undefined;
}
