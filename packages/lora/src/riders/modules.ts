import { Tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { copyOf, replacing } from "../methods/method.js";
import type { Passenger, RiderContext, RiderOptions } from "../methods/rider.js";
import type { AdaptableModule } from "../targeting/model.js";

/** The module's own parameters. */
function ownParameters(module: AdaptableModule): Record<string, Tensor> {
  const { weight, bias } = module as { readonly weight?: unknown; readonly bias?: unknown };
  return { ...(weight instanceof Tensor && { weight }), ...(bias instanceof Tensor && { bias }) };
}

/** True for a module that an entry names by its end, and for what lies below it. As in PEFT, an end needs no dot before it. */
export function isNamed(name: string, entries: readonly string[]): boolean {
  const parts = name.split(".");
  return parts.some((_, i) =>
    entries.some((entry) =>
      parts
        .slice(0, i + 1)
        .join(".")
        .endsWith(entry),
    ),
  );
}

/** True for modules that a method has to leave alone because they are trained whole. */
export function isTrainedWhole(name: string, entries: readonly string[] = []): boolean {
  return entries.some((entry) => name === entry || `.${name}.`.includes(`.${entry}.`));
}

/**
 * Trains whole copies of modules in their place. A copy of a tied embedding or output layer is its own, unless `ensureWeightTying` keeps
 * both together: then one copy serves both and the file holds it twice, as PEFT's does. Throws AdapterError for names that fit nothing.
 */
export function trainModules(options: RiderOptions, { model }: RiderContext): Passenger[] {
  const { modulesToSave: entries = [], ensureWeightTying = false } = options;
  if (entries.length === 0) return [];
  const passengers: Passenger[] = [];
  const copies = new Map<Tensor, Tensor>();
  const modules = [...model.namedModules()].filter(([name]) => name !== "");
  for (const [place, module] of modules) {
    if (!isNamed(place, entries)) continue;
    const own = ownParameters(module);
    const trained: Record<string, Tensor> = {};
    for (const [key, weight] of Object.entries(own)) {
      trained[key] = copyOf(weight);
      copies.set(weight, trained[key]);
    }
    if (Object.keys(own).length === 0) continue;
    passengers.push({
      place,
      attachment: {
        parameters: trained,
        enable: replacing(module, trained),
        merge: () => Object.entries(own).map(([key, weight]) => ({ weight, value: trained[key] as Tensor, isWhole: ensureWeightTying })), // one a key
      },
    });
  }
  if (passengers.length === 0) {
    throw new AdapterError(
      `modulesToSave ${entries.map((entry) => `"${entry}"`).join(", ")} name no module with parameters. Check the names.`,
      [...entries],
    );
  }
  if (!ensureWeightTying) return passengers;
  const chosen = new Set(passengers.map(({ place }) => place));
  for (const [place, module] of modules) {
    const { weight } = ownParameters(module);
    const copy = weight && copies.get(weight);
    if (!copy || chosen.has(place)) continue;
    passengers.push({
      place,
      attachment: { parameters: {}, constants: { weight: copy }, enable: replacing(module, { weight: copy }), merge: () => [] },
    });
  }
  return passengers;
}
