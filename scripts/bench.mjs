// npm run bench: the kernel benchmarks where they are built, else the matmul that `lowrank doctor` times.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { prepare, root, run } from "./prepare.mjs";

await prepare();
const suite = join(root, "apps", "bench", "dist", "main.js");
const command = existsSync(suite) ? [suite] : ["apps/cli/bin/lowrank.js", "doctor"];
process.exitCode = await run(process.execPath, [...command, ...process.argv.slice(2)]);
