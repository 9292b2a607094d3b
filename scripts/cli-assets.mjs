// Copies what `lowrank quickstart` and `lowrank compare` need from examples/ into apps/cli/assets, in the same places, so that the packed command line has it.
import { cpSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { root } from "./prepare.mjs";

const assets = join(root, "apps", "cli", "assets");
rmSync(assets, { recursive: true, force: true });
for (const path of ["base-model/model", "orders/generate.mjs", "random.mjs", "general-text.jsonl"]) {
  const target = join(assets, path);
  mkdirSync(dirname(target), { recursive: true });
  cpSync(join(root, "examples", path), target, { recursive: true });
}
