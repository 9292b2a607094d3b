import { expect, it } from "vitest";
import { commands } from "../src/commands/table.js";

for (const [name, load] of Object.entries(commands)) {
  it(`the table's ${name} is the command of that name`, async () => expect((await load()).name).toBe(name));
}
