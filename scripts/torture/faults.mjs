// What befalls a run from outside, once its first checkpoint is there: the same bytes at the end, or a typed error after which it resumes to them.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "../prepare.mjs";
import { findVulkan, vulkanEnvironment } from "../vulkan.mjs";
import { command, differenceOf, problemOf, resultOf } from "./command.mjs";

/** @typedef {{ name: string, run: (folder: string) => Promise<{ problem: string | null, skipped?: string, said?: string }> }} Fault */

/** A line of what a command that failed said, for the table. @param {string} output */
const lastError = (output) =>
  /error: (.*)/
    .exec(output)?.[1]
    ?.replaceAll(/\/\S*\//g, "")
    .slice(0, 90) ?? "";

/** @param {{ model: string, train: string, heldOut: string }} project @returns {Fault[]} */
export function faults({ model, train, heldOut }) {
  const trained = [
    "train",
    "--model",
    model,
    "--data",
    train,
    "--batch-size",
    "4",
    "--steps",
    "60",
    "--save-every",
    "2",
    "--dropout",
    "0.1",
  ];
  const onCpu = [...trained, "--device", "cpu"];
  const compared = [
    ...[
      "compare",
      "--model",
      model,
      "--data",
      train,
      "--eval-data",
      heldOut,
      "--batch-size",
      "4",
      "--device",
      "cpu",
      "--methods",
      "lora,ia3",
    ],
    ...["--steps", "8", "--save-every", "2", "--latency-seconds", "0.2"],
  ];
  const stateOf = (/** @type {string} */ out) => join(out, "training-state.safetensors");

  /**
   * Runs undisturbed, disturbed, and on to the end where a typed error ended it.
   * @param {string} folder
   * @param {readonly string[]} args
   * @param {{ out?: string, fate: import("./command.mjs").Fate, mustFail?: RegExp, mend?: () => void, env?: NodeJS.ProcessEnv, intact?: boolean }} how
   */
  async function disturbed(folder, args, { out = join(folder, "out"), fate, mustFail, mend, env = {}, intact = true }) {
    const whole = join(folder, "whole");
    const first = await command([...args, "--out", whole], { env });
    const wrong = problemOf(first);
    if (wrong !== null) return { problem: `undisturbed: ${wrong}` };
    let happened = false;
    const outcome = await command([...args, "--out", out], {
      env,
      ...fate,
      happen(child) {
        happened = true;
        fate.happen?.(child);
      },
    });
    if (!happened) return { problem: `it ended before anything happened: ${problemOf(outcome) ?? "exit status 0"}` };
    const problem = problemOf(outcome, true);
    if (problem !== null) return { problem };
    if (outcome.code === 0) {
      if (mustFail) return { problem: "exit status 0 where it cannot have saved" };
      return { problem: differenceOf(resultOf(out), resultOf(whole)), said: "went on" };
    }
    if (mustFail && !mustFail.test(outcome.output)) return { problem: `another error: ${lastError(outcome.output)}` };
    if (intact && !existsSync(stateOf(out))) return { problem: "the checkpoint that was there is gone" };
    mend?.();
    const again = await command([...args, "--out", out, ...(args[0] === "train" ? ["--resume"] : [])], { env });
    return { problem: problemOf(again) ?? differenceOf(resultOf(out), resultOf(whole)), said: lastError(outcome.output) };
  }

  return [
    {
      name: "the disk is full",
      async run(folder) {
        const disk = join(folder, "disk");
        mkdirSync(disk);
        const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], { encoding: "utf8" });
        if (mounted.status !== 0) return { problem: null, skipped: "no small disk can be mounted without root" };
        try {
          const [out, filler] = [join(disk, "out"), join(disk, "filler")];
          const fill = () => spawnSync("dd", ["if=/dev/zero", `of=${filler}`, "bs=4096"], { stdio: "ignore" });
          const fate = { when: () => existsSync(stateOf(out)), happen: fill };
          return await disturbed(folder, onCpu, { out, fate, mustFail: /disk is full/, mend: () => rmSync(filler) });
        } finally {
          spawnSync("umount", ["-l", disk]);
        }
      },
    },
    {
      name: "the folder is removed",
      run(folder) {
        const out = join(folder, "out");
        // All at once, as no removal file by file is.
        const happen = () => {
          renameSync(out, join(folder, "gone"));
          rmSync(join(folder, "gone"), { recursive: true, force: true });
        };
        return disturbed(folder, onCpu, { fate: { when: () => existsSync(stateOf(out)), happen }, intact: false });
      },
    },
    ...[onCpu, compared].map((args) => ({
      name: `the output of ${args[0]} is closed`,
      run(/** @type {string} */ folder) {
        const out = join(folder, "out");
        const isUnderWay = () =>
          existsSync(out) && readdirSync(out).some((name) => !name.startsWith(".") && statSync(join(out, name)).size > 0);
        const happen = (/** @type {import("node:child_process").ChildProcess} */ child) => {
          child.stdout?.destroy();
          child.stderr?.destroy();
        };
        return disturbed(folder, args, { fate: { when: isUnderWay, happen } });
      },
    })),
    ...["-400d", "+400d"].map((jump) => ({
      name: `the clock goes ${jump}`,
      async run(/** @type {string} */ folder) {
        const library = faketime();
        if (library === null) return { problem: null, skipped: "no libfaketime (Debian's package faketime)" };
        const [out, clock] = [join(folder, "out"), join(folder, "clock")];
        writeFileSync(clock, "+0\n");
        const env = { LD_PRELOAD: library, FAKETIME_TIMESTAMP_FILE: clock, FAKETIME_NO_CACHE: "1", FAKETIME_DONT_FAKE_MONOTONIC: "1" };
        const happen = () => writeFileSync(clock, `${jump}\n`);
        return disturbed(folder, onCpu, { fate: { env, when: () => existsSync(stateOf(out)), happen } });
      },
    })),
    {
      name: "the WebGPU device is lost",
      async run(folder) {
        const driver = findVulkan("swiftshader");
        if (typeof driver === "string") return { problem: null, skipped: driver };
        const [out, lose] = [join(folder, "out"), join(folder, "lose")];
        const loader = driver.loader === null ? {} : { LD_LIBRARY_PATH: dirname(driver.loader) };
        const env = { ...vulkanEnvironment("swiftshader"), ...loader };
        const hook = ["--import", pathToFileURL(join(root, "scripts", "torture", "lose-device.mjs")).href];
        const fate = {
          env: { ...env, LOWRANK_TORTURE_LOSE: lose },
          nodeArgs: hook,
          when: () => existsSync(stateOf(out)),
          happen: () => writeFileSync(lose, ""),
        };
        return disturbed(folder, [...trained, "--device", "webgpu"], { fate, env, mustFail: /--resume/ });
      },
    },
  ];
}

/** libfaketime's file; null where there is none. */
function faketime() {
  const known = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib64/faketime", "/usr/lib/faketime"];
  return known.map((folder) => join(folder, "libfaketime.so.1")).find((file) => existsSync(file)) ?? null;
}
