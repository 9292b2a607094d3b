// npm run quickstart: from a fresh clone to a fine-tuned model.
import { prepare, run } from "./prepare.mjs";

await prepare();
process.exitCode = await run(process.execPath, ["apps/cli/bin/lowrank.js", "quickstart", ...process.argv.slice(2)]);
