import { runCli } from "./run.js";

// Whoever reads the output may have had enough (`lowrank inspect … | head`): that ends the command, and is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});

process.exitCode = await runCli(process.argv.slice(2));
