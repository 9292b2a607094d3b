import { NotApplicableError } from "@lowrank/lora";
import type { LoadedModel } from "@lowrank/models";
import { applyMethod, fullMethod, methodOf } from "../method.js";

/** What lets a method train on a model that has no place for it as published, and what is said of it. */
const variants: Readonly<Record<string, { readonly options: Readonly<Record<string, unknown>>; readonly note: string }>> = {
  bitfit: {
    options: { addMissing: true },
    note: "this model has no biases, so each dense layer is given one, 0 at first (addMissing), which the paper does not do; they cannot be merged",
  },
};

/** Why a method cannot be put on the model at all; null where it can. */
function whyNot(model: LoadedModel["model"], name: string, own: Readonly<Record<string, unknown>>): string | null {
  try {
    applyMethod(model, name, own, { seed: 0, baseModel: "", onWarning: () => {} }).disable();
    return null;
  } catch (error) {
    if (error instanceof NotApplicableError) return error.message;
    throw error;
  }
}

/** How the methods asked for fit a model. */
export interface Placed {
  /** A method's options, as they are or in a variant. */
  readonly options: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
  /** Methods that are trained in a variant, and in which. */
  readonly varying: ReadonlyMap<string, string>;
  /** Methods that this model has no place for, and why. */
  readonly left: ReadonlyMap<string, string>;
}

/** Tries each method on the model, as its options say, then in a variant. */
export function placed(model: LoadedModel["model"], asked: ReadonlyMap<string, Readonly<Record<string, unknown>>>): Placed {
  const [options, varying, left] = [new Map(asked), new Map<string, string>(), new Map<string, string>()];
  for (const [name, own] of asked) {
    const reason = methodOf(name) === fullMethod ? null : whyNot(model, name, own);
    if (reason === null) continue;
    const variant = variants[methodOf(name)];
    // What the user has set is not set otherwise.
    const varied = variant && { ...variant.options, ...own };
    if (variant && varied && whyNot(model, name, varied) === null) {
      options.set(name, varied);
      varying.set(name, variant.note);
    } else left.set(name, reason);
  }
  return { options, varying, left };
}
