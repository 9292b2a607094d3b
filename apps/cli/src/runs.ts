import type { CausalLM, RunState } from "@lowrank/models";
import { UsageError } from "./failure.js";

/** Positions that a row can take: the model's context without the virtual tokens of an adapter. */
export function contextOf(model: Pick<CausalLM, "contextLength" | "virtualTokens">): number {
  return model.contextLength - model.virtualTokens.length;
}

/** Throws UsageError when a run in a folder was started with other settings than those of now. */
export function checkSettings(out: string, saved: RunState["settings"], now: RunState["settings"]): void {
  const differing = Object.keys({ ...saved, ...now }).filter(
    (name) => saved[name] !== now[name] && (saved[name] ?? null) !== (now[name] ?? null),
  );
  if (differing.length === 0) return;
  const list = differing.map((name) => `--${name} was ${saved[name] ?? "absent"} and is ${now[name] ?? "absent"}`).join(", ");
  throw new UsageError(`${out} holds a run with other settings: ${list}. Resume with the same flags, or give another --out.`);
}
