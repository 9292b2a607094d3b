import * as z from "zod/mini";
import { AdapterError } from "../errors.js";
import type { Passenger, RiderContext, RiderName, RiderOptions } from "../methods/rider.js";
import type { PeftFields } from "../peft/fields.js";
import type { Targets } from "../targeting/match.js";
import { trainBiases } from "./bias.js";
import { saveEmbeddings } from "./embeddings.js";
import { isTrainedWhole, trainModules } from "./modules.js";
import { trainTokens } from "./tokens.js";

export type { Passenger, RiderName, RiderOptions } from "../methods/rider.js";
export { isTrainedWhole } from "./modules.js";

const names: readonly RiderName[] = ["bias", "modulesToSave", "trainableTokens", "ensureWeightTying"];

/** Tells the options of riders from the method's own. Throws AdapterError for those that the method does not take along. */
export function splitRiders(given: object, method: string, allowed: readonly RiderName[]): { riders: RiderOptions; own: object } {
  const entries = Object.entries(given);
  const riders = entries.filter(([name, value]) => (names as readonly string[]).includes(name) && value !== undefined);
  const refused = riders.map(([name]) => name).filter((name) => !(allowed as readonly string[]).includes(name));
  if (refused.length > 0) {
    throw new AdapterError(`Method "${method}" has no ${refused.join(", ")}. It takes ${allowed.join(", ") || "none of them"}.`, refused);
  }
  const options = Object.fromEntries(riders) as RiderOptions;
  if (options.bias !== undefined && !["none", "all", "targeted"].includes(options.bias))
    throw new AdapterError(`bias is "${String(options.bias)}". Use "none", "all" or "targeted".`, ["bias"]);
  return { riders: options, own: Object.fromEntries(entries.filter(([name]) => !(names as readonly string[]).includes(name))) };
}

/** The places that are left to the method: modules that are trained whole are not its business. */
export function withoutWhole<Place>(places: ReadonlyMap<string, Place>, { modulesToSave }: RiderOptions): ReadonlyMap<string, Place> {
  return modulesToSave ? new Map([...places].filter(([name]) => !isTrainedWhole(name, modulesToSave))) : places;
}

/** Everything that is trained beside the method's own. */
export function ride(options: RiderOptions, context: RiderContext, targets: Targets | undefined): Passenger[] {
  refuseTiedTargets(options, context);
  return [
    ...[trainBiases, trainModules, trainTokens].flatMap((rider) => rider(options, context)),
    ...saveEmbeddings(options, context, targets),
  ];
}

/**
 * PEFT ties an adapter on an embedding to one on the output layer by giving two parameters one memory, which the optimizer then moves twice a
 * step. Nothing here would train like that, so it is refused.
 */
function refuseTiedTargets({ ensureWeightTying }: RiderOptions, { model, targeted }: RiderContext): void {
  if (ensureWeightTying !== true) return;
  const modules = [...model.namedModules()] as [string, { readonly weight?: unknown }][];
  const isShared = (weight: unknown): boolean => modules.filter(([, module]) => module.weight === weight).length > 1;
  const tied = modules.filter(([name, { weight }]) => targeted.has(name) && weight !== undefined && isShared(weight)).map(([name]) => name);
  if (tied.length > 0) {
    throw new AdapterError(
      `ensure_weight_tying is not supported on a target that shares its weight (${tied.join(", ")}). Leave it out of the targets, or train it whole (modules_to_save).`,
      tied,
    );
  }
}

/** The fields of adapter_config.json for riders that are set. */
export function ridersToPeft({ bias, modulesToSave, trainableTokens, ensureWeightTying }: RiderOptions, prefix: string): object {
  return {
    ...(bias !== undefined && { bias: bias === "targeted" ? `${prefix}_only` : bias }),
    ...(modulesToSave !== undefined && { modules_to_save: modulesToSave }),
    ...(trainableTokens !== undefined && { trainable_token_indices: trainableTokens }),
    ...(ensureWeightTying === true && { ensure_weight_tying: true }),
  };
}

/** Takes the fields of riders that the method takes along; others stay, to be refused. */
export function ridersFromPeft(fields: PeftFields, allowed: readonly RiderName[]): RiderOptions {
  const has = (name: RiderName, field: string): boolean => allowed.includes(name) && (fields.peek(field) ?? false) !== false;
  const bias = has("bias", "bias") ? fields.takeText("bias") : null;
  const modules = has("modulesToSave", "modules_to_save") ? fields.takeNames("modules_to_save") : undefined;
  const tokens = has("trainableTokens", "trainable_token_indices")
    ? fields.take<NonNullable<RiderOptions["trainableTokens"]>>(
        "trainable_token_indices",
        tokenSchema,
        "a list of token numbers, or one by module",
        [],
      )
    : undefined;
  if (bias !== null && bias !== "none" && bias !== "all" && !bias.endsWith("_only"))
    throw new AdapterError(`${fields.file}: bias is "${bias}". Known are none, all and those of the method's layers.`, ["bias"]);
  return {
    ...(bias !== null && bias !== "none" && { bias: bias === "all" ? ("all" as const) : ("targeted" as const) }),
    ...(modules !== undefined && { modulesToSave: typeof modules === "string" ? [modules] : modules }),
    ...(tokens !== undefined && { trainableTokens: tokens }),
    ...(has("ensureWeightTying", "ensure_weight_tying") && { ensureWeightTying: fields.takeFlag("ensure_weight_tying") }),
  };
}

const tokenSchema = z.union([z.array(z.int()), z.record(z.string(), z.array(z.int()))]);
