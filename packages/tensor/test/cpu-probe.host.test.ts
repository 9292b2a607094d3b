import { availableParallelism } from "node:os";
import { describe, expect, it, vi } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import type { CpuEnvironment, WorkerHandle } from "../src/backends/cpu/environment.js";
import { coreCount, nodeEnvironment } from "../src/backends/cpu/node.js";
import { type Probe, probedEnvironment, probeThreads } from "../src/backends/cpu/probe.js";
import { tensor } from "../src/graph/create.js";
import { Device } from "../src/graph/device.js";
import { device as openDevice } from "../src/index.js";
import { planExecutor } from "../src/schedule/plan-executor.js";
import { DeviceError } from "../src/tensor/errors.js";

const environment = nodeEnvironment();
const spawn = environment.spawn as NonNullable<CpuEnvironment["spawn"]>;

/** The main thread of a page: it may not wait. */
const pageOf = (spawnWorker: CpuEnvironment["spawn"]): CpuEnvironment => ({
  ...environment,
  mayBlock: false,
  threadCount: 4,
  spawn: spawnWorker,
});
const never = (): WorkerHandle => ({ terminate: () => undefined });
const failing = (): WorkerHandle => ({ ...never(), failed: Promise.resolve("forbidden here") });
const throwing = (): WorkerHandle => {
  throw new Error("SecurityError: forbidden here");
};

describe("threads that are worth having", () => {
  it("are no more than there are cores, however many are reported", async () => {
    const cores = availableParallelism();
    const { threadCount, reason } = await probeThreads(spawn, 2 * cores);
    expect(reason).toBeUndefined();
    expect(threadCount).toBeGreaterThanOrEqual(1);
    expect(threadCount).toBeLessThanOrEqual(cores);
  });

  it("are those reported where the clock is too coarse to tell", async () => {
    const coarse: typeof spawn = (program, data) =>
      spawn(`{ const fine = performance.now.bind(performance); performance.now = () => Math.floor(fine() / 16) * 16; }${program}`, data);
    expect(await probeThreads(coarse, 3)).toEqual({ threadCount: 3 });
  });

  it("are counted once for a page, and not where the caller gives their number", async () => {
    let startedCount = 0;
    const counting: typeof spawn = (program, data) => {
      startedCount++;
      return spawn(program, data);
    };
    const known = new Map<string, Promise<Probe>>();
    const first = await probedEnvironment(undefined, pageOf(counting), known);
    const again = await probedEnvironment(undefined, pageOf(counting), known);
    expect(again.threadCount).toBe(first.threadCount);
    expect(startedCount).toBe(4);
    expect((await probedEnvironment(7, pageOf(counting), known)).threadCount).toBe(7);
    expect(startedCount).toBe(5);
  });
});

describe("a page whose policy forbids workers", () => {
  it.each([
    ["an error event", failing],
    ["an exception", throwing],
  ])("computes on one thread, and says why, after %s", async (_, forbidden) => {
    const found = await probedEnvironment(undefined, pageOf(forbidden), new Map());
    expect([found.threadCount, found.spawn]).toEqual([1, null]);
    const device = new Device("cpu", createCpuBackend({ environment: found, budgetBytes: 2 ** 26 }), planExecutor());
    expect(device.description).toMatch(/1 thread, .*; no worker starts: .*forbidden here/);
    const a = tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { device },
    );
    expect([...(await a.matmul(a).data())]).toEqual([7, 10, 15, 22]);
    device.dispose();
  });

  it("does not wait for a worker that is lost after it was tried: the job ends with a DeviceError", async () => {
    let lose = (_reason: string): void => {};
    const failed = new Promise<string>((resolve) => {
      lose = resolve;
    });
    const device = new Device(
      "cpu",
      createCpuBackend({ environment: pageOf(() => ({ ...never(), failed })), threadCount: 1, budgetBytes: 2 ** 26 }),
      planExecutor(),
    );
    const result = tensor([1, 2], { device }).add(1).data();
    setTimeout(() => lose("out of memory"), 10);
    await expect(result).rejects.toThrow(/cpu: a thread failed: out of memory\. Open the device again/);
    device.dispose();
  });
});

describe("the cores that Node may use", () => {
  it.each<[string, Readonly<Record<string, string>>, number]>([
    ["no control groups", {}, 8],
    ["no limit", { "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "max 100000\n" }, 8],
    ["two cores of a container", { "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "200000 100000\n" }, 2],
    ["one core and a half", { "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "150000 100000\n" }, 2],
    ["a tenth of a core", { "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "10000 100000\n" }, 1],
    [
      "a limit of the group above",
      {
        "/proc/self/cgroup": "0::/a.slice/b.scope\n",
        "/sys/fs/cgroup/a.slice/cpu.max": "300000 100000",
        "/sys/fs/cgroup/a.slice/b.scope/cpu.max": "max 100000",
      },
      3,
    ],
    [
      "cgroups 1, the host's path in a container",
      {
        "/proc/self/cgroup": "4:cpu,cpuacct:/docker/1\n0::/\n",
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
        "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
      },
      4,
    ],
    [
      "cgroups 1 without a limit",
      { "/proc/self/cgroup": "4:cpu:/\n", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000" },
      8,
    ],
    ["more than there are", { "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "1600000 100000\n" }, 8],
    ["damaged files", { "/proc/self/cgroup": "nonsense\n0::x\n0::/\n", "/sys/fs/cgroup/cpu.max": "x y z" }, 8],
  ])("%s", (_, files, expected) => {
    expect(coreCount(8, (path) => files[path] ?? null)).toBe(expected);
  });
});

describe("a number of threads that is none", () => {
  it.each([0, 2.5, -1, Number.NaN, 1e6, "4"])("device refuses %s", async (threads) => {
    await expect(openDevice("cpu", { threads } as { threads: number })).rejects.toThrow(
      /^cpu: `threads` is .+, not a whole number from 1 to 1024\. Correct it/,
    );
  });

  it.each(["abc", "0", "-2", "1.5", "99999"])("LOWRANK_THREADS=%s is refused", (value) => {
    vi.stubEnv("LOWRANK_THREADS", value);
    expect(() => nodeEnvironment()).toThrow(DeviceError);
    vi.unstubAllEnvs();
  });

  it.each([
    ["", coreCount()],
    ["3", 3],
  ])("LOWRANK_THREADS=%s is taken", (value, count) => {
    vi.stubEnv("LOWRANK_THREADS", value);
    expect(nodeEnvironment().threadCount).toBe(count);
    vi.unstubAllEnvs();
  });
});
