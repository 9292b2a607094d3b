import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { hasGraphicsNode } from "../src/backends/node/hardware.js";

const root = mkdtempSync(join(tmpdir(), "lowrank-nodes-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe("Linux shows a GPU that can compute", () => {
  test.each<[sentence: string, files: readonly string[], isThere: boolean]>([
    ["nowhere in a container without devices", [], false],
    ["not by a screen without a renderer", ["dri/card0"], false],
    ["by a DRM render node", ["dri/card0", "dri/renderD128"], true],
    ["by NVIDIA's own device", ["nvidia0"], true],
    ["not by NVIDIA's control device alone", ["nvidiactl"], false],
    ["in WSL", ["dxg"], true],
    ["on a Mali", ["mali0"], true],
  ])("%s", (sentence, files, isThere) => {
    const devices = join(root, sentence.replaceAll(" ", "-"));
    mkdirSync(join(devices, "dri"), { recursive: true });
    for (const file of files) writeFileSync(join(devices, file), "");
    expect(hasGraphicsNode(devices)).toBe(isThere);
  });
  test("not where there is no folder of devices", () => {
    expect(hasGraphicsNode(join(root, "absent"))).toBe(false);
  });
});
