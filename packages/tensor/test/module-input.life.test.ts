import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

test("the cpu's threads run in a process whose program is a module given on the command line", () => {
  const program = `import { device, ones } from "@lowrank/tensor";
const dev = await device("cpu", { threads: 2 });
const x = ones([512, 512], { device: dev }).add(0);
for (let i = 1; i <= 20; i++) {
  if ((await x.mul(i).matmul(x).sum().item()) !== i * 512 ** 3) throw new Error("wrong");
  // A thread that cannot start says so a little later.
  await new Promise((resolve) => setTimeout(resolve, 10));
}
console.log("all right");
dev.dispose();`;
  const cwd = fileURLToPath(new URL("../../..", import.meta.url));
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "--eval", program], { cwd, encoding: "utf8" });
  expect(stderr).toBe("");
  expect(stdout.trim()).toBe("all right");
});
