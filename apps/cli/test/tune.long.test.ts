import { readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { skipReason } from "test-support";
import { describe, expect, it } from "vitest";
import { findVulkan, vulkanEnvironment } from "../../../scripts/vulkan.mjs";
import { lowrank, scratchFolder } from "./cli.js";

const driver = findVulkan("swiftshader");
if (typeof driver === "string") skipReason(`no WebGPU for the command tune: ${driver}`);

const folder = scratchFolder();
const model = join(folder, "config.json");
writeFileSync(model, JSON.stringify({ model_type: "gpt2", n_layer: 1, n_embd: 32, n_head: 2, vocab_size: 64, n_positions: 16 }));

/** Runs the command on SwiftShader, with a cache of its own. */
function tune(...args: readonly string[]): ReturnType<typeof lowrank> {
  if (typeof driver === "string") throw new Error(driver);
  const loader = driver.loader === null ? {} : { LD_LIBRARY_PATH: dirname(driver.loader) };
  const env = { ...vulkanEnvironment("swiftshader"), ...loader, XDG_CACHE_HOME: join(folder, "cache") };
  return lowrank(["tune", "--model", model, "--batch", "2", ...args], { env });
}

describe.skipIf(typeof driver === "string")("lowrank tune", () => {
  it("measures the products of a step once and remembers them for the adapter", async () => {
    const first = await tune("--json");
    expect(first.code, first.stderr).toBe(0);
    const { adapter, tuned } = JSON.parse(first.stdout) as {
      adapter: string;
      tuned: readonly { name: string; modelledMs: number; fastestMs: number }[];
    };
    expect(adapter).toMatch(/swiftshader/i);
    expect(tuned.map(({ name }) => name)).toContain("32x32 f32 · 32x128 f32");
    for (const { modelledMs, fastestMs } of tuned) expect(fastestMs).toBeLessThanOrEqual(modelledMs);
    const second = await tune();
    expect(second.code, second.stderr).toBe(0);
    expect(second.stdout).toContain(`${tuned.length} classes were known from before`);
    for (const line of second.stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
  });

  it("names the file when what was remembered is damaged", async () => {
    const tunings = join(folder, "cache", "lowrank", "tunings");
    const [file = ""] = readdirSync(tunings);
    writeFileSync(join(tunings, file), '{"adapter": 3}');
    const { code, stderr } = await tune();
    expect(code).toBe(2);
    expect(stderr).toContain(
      `${join(tunings, file)}: this is no tuning of kernel variants: adapter is not a text. Delete it and tune again.`,
    );
  });
});
