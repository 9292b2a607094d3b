import { expect, it } from "vitest";
import { setNodeEnvironment } from "../../../packages/tensor/src/backends/node/environment.js";
import { setEnvironment } from "../../../packages/tensor/src/backends/select.js";
import { doctorCommand } from "../src/commands/doctor.js";
import { commands } from "../src/commands/table.js";

for (const [name, load] of Object.entries(commands)) {
  it(`the table's ${name} is the command of that name`, async () => expect((await load()).name).toBe(name));
}

it("doctor has the cursor at the start of a line while Dawn, which prints by itself, is loaded", async () => {
  const said: string[] = [];
  const atOpening: Partial<Record<"cpu" | "webgpu", string>> = {};
  const opening = (name: "cpu" | "webgpu") => (): Promise<never> => {
    atOpening[name] = said.at(-1) ?? "";
    return Promise.reject(new Error("none here"));
  };
  setEnvironment({ cpu: opening("cpu"), webgpu: opening("webgpu"), hasGpu: async () => false });
  const output = {
    ...{
      isJson: false,
      isTerminal: true,
      columns: 80,
      tableColumns: 80,
      part: () => {},
      styled: () => {},
      whole: () => {},
      note: () => {},
    },
    say: (line = "") => void said.push(`${line}\n`),
    draw: (line: string) => void said.push(line),
    result: () => {},
  };
  const { signal } = new AbortController();
  const context = { values: { seconds: 1, json: false }, positionals: [], given: new Set<string>(), args: [], output, signal };
  try {
    expect(await doctorCommand.run(context)).toBe(2);
  } finally {
    setNodeEnvironment();
  }
  expect(atOpening).toEqual({ cpu: "trying cpu …", webgpu: "trying webgpu …\n" });
});
