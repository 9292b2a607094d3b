import type { DeviceName } from "@lowrank/tensor";
import { expect, it, vi } from "vitest";
import { doctorCommand } from "../src/commands/doctor.js";
import { commands } from "../src/commands/table.js";

const opened = vi.hoisted(() => vi.fn<(name: DeviceName) => Promise<never>>());
vi.mock("@lowrank/tensor", async (original) => ({ ...(await original<typeof import("@lowrank/tensor")>()), device: opened }));

for (const [name, load] of Object.entries(commands)) {
  it(`the table's ${name} is the command of that name`, async () => expect((await load()).name).toBe(name));
}

it("doctor has the cursor at the start of a line while Dawn, which prints by itself, is loaded", async () => {
  const said: string[] = [];
  const atOpening: Partial<Record<DeviceName, string>> = {};
  opened.mockImplementation((name) => {
    atOpening[name] = said.at(-1) ?? "";
    return Promise.reject(new Error("none here"));
  });
  const output = {
    ...{ isJson: false, isTerminal: true, columns: 80, tableColumns: 80, part: () => {}, whole: () => {}, note: () => {} },
    say: (line = "") => void said.push(`${line}\n`),
    draw: (line: string) => void said.push(line),
    result: () => {},
  };
  const { signal } = new AbortController();
  const context = { values: { seconds: 1, json: false }, positionals: [], given: new Set<string>(), args: [], output, signal };
  expect(await doctorCommand.run(context)).toBe(2);
  expect(atOpening).toEqual({ cpu: "trying cpu …", webgpu: "trying webgpu …\n" });
});
