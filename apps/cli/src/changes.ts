import { realpathSync } from "node:fs";
import type { LoadedModel, RunState } from "@lowrank/models";
import { UsageError } from "./failure.js";
import type { Output } from "./output.js";

/** What decides how a run continues: its settings, and digests of what it reads where there are any. */
export type RunBasis = Pick<RunState, "settings"> & Partial<Pick<RunState, "hashes">>;

/** Digests of what a run reads, by what it is. */
export function contentsOf(
  { hashes: { model, tokenizer } }: Pick<LoadedModel, "hashes">,
  data: { readonly digest: string },
  heldOut: { readonly digest: string } | null,
): Readonly<Record<string, string>> {
  return { model, ...(tokenizer !== null && { tokenizer }), data: data.digest, ...(heldOut && { "eval-data": heldOut.digest }) };
}

/** What these digests are of. */
const contents: Readonly<Record<string, string>> = {
  model: "the weights or config.json of --model",
  tokenizer: "the tokenizer of --model",
  data: "the rows of --data",
  "eval-data": "the rows of --eval-data",
  "general-text": "the text of --general-text",
};

/** Settings that are places: another path to the same place is not a change, and where the contents are known the place does not matter. */
const places: ReadonlySet<string> = new Set(["model", "data", "eval-data", "general-text"]);

/** How settings and contents differ from those that a run was started with, a phrase each. */
export function changesOf(saved: RunBasis, now: RunBasis): string[] {
  const changes: string[] = [];
  for (const name of Object.keys({ ...saved.settings, ...now.settings })) {
    const [before, after] = [saved.settings[name] ?? null, now.settings[name] ?? null];
    const isSame = before === after || isKnown(name, saved, now) || (places.has(name) && isSamePlace(before, after));
    if (!isSame) changes.push(`--${name} was ${before ?? "absent"} and is ${after ?? "absent"}`);
  }
  for (const [name, digest] of Object.entries(saved.hashes ?? {})) {
    const after = now.hashes?.[name];
    if (after !== undefined && after !== digest) changes.push(`${contents[name] ?? name} changed`);
  }
  return changes;
}

/** Whether the contents of a place are compared, so that where it lies does not matter. */
function isKnown(name: string, saved: RunBasis, now: RunBasis): boolean {
  return places.has(name) && saved.hashes?.[name] !== undefined && now.hashes?.[name] !== undefined;
}

/** The settings of now, with a place whose contents are compared called as it was when the run was started. */
export function asSaved(saved: RunBasis, now: RunBasis): RunState["settings"] {
  return Object.fromEntries(
    Object.entries(now.settings).map(([name, value]) => [name, isKnown(name, saved, now) ? (saved.settings[name] ?? null) : value]),
  );
}

function isSamePlace(a: unknown, b: unknown): boolean {
  try {
    return realpathSync(String(a)) === realpathSync(String(b));
  } catch {
    return false; // one of them is not there
  }
}

function otherRun(out: string, changes: readonly string[], remedy: string): UsageError {
  return new UsageError(`${out} holds a run with other settings: ${changes.join(", ")}. Resume with the same flags and files, ${remedy}.`);
}

/** Throws UsageError when a run in a folder was started with other settings, or on other contents, than those of now. */
export function checkSettings(out: string, saved: RunBasis, now: RunBasis): void {
  const changes = changesOf(saved, now);
  if (changes.length > 0) throw otherRun(out, changes, "or give another --out");
}

/** What has changed since a run was started, where that is allowed, and said; else throws UsageError where anything has. */
export function allowedChanges(out: string, saved: RunState, now: RunBasis, isAllowed: boolean, output: Pick<Output, "note">): string[] {
  const changes = changesOf(saved, now);
  if (changes.length > 0 && !isAllowed)
    throw otherRun(out, changes, "continue in spite of the changes with --allow-changed, or give another --out");
  for (const change of changes) output.note(`warning: since the run was started, ${change}; continuing with --allow-changed`);
  noteUncompared(out, saved, output);
  return changes;
}

/** Says so where a run was started before digests were kept. */
export function noteUncompared(out: string, saved: RunBasis, output: Pick<Output, "note">): void {
  if (saved.hashes === null)
    output.note(`warning: ${out} was made before the contents of model, tokenizer and rows were noted, so they cannot be compared`);
}
