import { type DType, unpacked } from "@lowrank/tensor";
import type { Module } from "./module.js";

/**
 * Gives parameters that lie in blocks (`tensor.packing`) back as numbers that stand alone, which may be assigned to and merged into: rounded to bf16, or in
 * another dtype. One after the other, so that there is never more than one of them twice. Those whose name `only` says, or all. Gives the names of those that
 * were changed. Rejects with OutOfMemoryError where there is no room; what was changed before stays so.
 */
export async function unpack(
  module: Module,
  { dtype = "bf16", only = () => true }: { readonly dtype?: DType; readonly only?: (name: string) => boolean } = {},
): Promise<string[]> {
  const changed: string[] = [];
  for (const [name, parameter] of module.namedParameters()) {
    if (!parameter.packing || !only(name)) continue;
    module.exchange(parameter, await unpacked(parameter, dtype));
    parameter.dispose();
    changed.push(name);
  }
  return changed;
}
