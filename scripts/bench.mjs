// npm run bench: the matmul that `lowrank doctor` times on every backend, and a LoRA step beside PyTorch's.
import { join } from "node:path";
import { prepare, root, run } from "./prepare.mjs";

await prepare();
for (const command of ["apps/cli/bin/lowrank.js doctor", "scripts/bench-step.mjs"]) {
  const [file = "", ...args] = command.split(" ");
  const code = await run(process.execPath, [join(root, file), ...args]);
  if (code !== 0) process.exitCode = code;
}
