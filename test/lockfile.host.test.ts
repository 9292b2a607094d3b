import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const text = readFileSync(new URL("../package-lock.json", import.meta.url), "utf8");
const packages: Record<string, { optionalDependencies?: Record<string, string> }> = JSON.parse(text).packages;

/** Whether Node, looking upward from a package's folder, would come to a dependency. */
function holds(folder: string, name: string): boolean {
  for (let at = folder; ; at = at.slice(0, Math.max(0, at.lastIndexOf("/node_modules/")))) {
    if (packages[`${at === "" ? "" : `${at}/`}node_modules/${name}`] !== undefined) return true;
    if (at === "") return false;
  }
}

test("the lock file names no registry, so that each machine asks its own", () => {
  expect([...text.matchAll(/"resolved": "(?:https?|git)[^"]*"/g)].map(([line]) => line)).toEqual([]);
});

test("the lock file holds the optional packages of every platform, without which npm ci refuses it", () => {
  const missing = Object.entries(packages).flatMap(([folder, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies)
      .filter((name) => !holds(folder, name))
      .map((name) => `${folder} needs ${name}`),
  );
  expect(missing).toEqual([]);
});
