import { CheckpointError } from "@lowrank/tensor";

export const commitPattern: RegExp = /^[0-9a-f]{40}$/;

export function isCommit(text: string): boolean {
  return commitPattern.test(text);
}

/** Throws CheckpointError for what no branch, tag or commit is called (git-check-ref-format), and what would lead out of a folder. */
export function checkRevision(id: string, revision: string): void {
  const parts = revision.split("/");
  const isName =
    /^[^\s\p{Cc}~^:?*[\\%#]+$/u.test(revision) &&
    parts.every((part) => part !== "" && !part.startsWith(".") && !part.endsWith(".lock")) &&
    !/\.\.|@\{|\.$/.test(revision) &&
    revision.length <= 200;
  if (isName) return;
  throw new CheckpointError(
    `${id}: "${revision}" is not the name of a branch, a tag or a commit. Correct the revision, or leave it out for main.`,
    id,
  );
}
