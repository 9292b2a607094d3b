import { mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test, vi } from "vitest";
import { processOutput } from "../src/output.js";
import { runCli } from "../src/run.js";
import { tableLines } from "../src/terminal/format.js";
import { printable, shownAround, shownLine, shownName } from "../src/terminal/printable.js";

const folder = realpathSync(mkdtempSync(join(tmpdir(), "lowrank-names-")));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Clears the screen, writes to the clipboard (OSC 52), starts a command in C1, reorders the rest of the line. */
const hostile = "\u001b[2J\u001b]52;c;cm0gLXJm\u0007\u009b31m\u202eevil\r\b\u007f";
/** What a terminal obeys; line feeds and tabs are our own. */
const obeyed = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/;

/** What a call writes to either stream. */
async function written(call: () => unknown): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const parts = { stdout: "", stderr: "" };
  const spies = (["stdout", "stderr"] as const).map((name) =>
    vi.spyOn(process[name], "write").mockImplementation((chunk) => {
      parts[name] += String(chunk);
      return true;
    }),
  );
  try {
    await call();
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
  return parts;
}

/** A safetensors file of one tensor of four bytes. */
function oneTensor(name: string): Uint8Array {
  const header = new TextEncoder().encode(JSON.stringify({ [name]: { dtype: "F32", shape: [1], data_offsets: [0, 4] } }));
  const bytes = new Uint8Array(8 + header.length + 4);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
  bytes.set(header, 8);
  return bytes;
}

writeFileSync(join(folder, "config.json"), JSON.stringify({ model_type: hostile, architectures: [hostile] }));
writeFileSync(join(folder, "model.safetensors"), oneTensor(hostile));
writeFileSync(join(folder, "adapter_model.safetensors"), oneTensor(hostile));
writeFileSync(
  join(folder, "adapter_config.json"),
  JSON.stringify({
    peft_type: hostile,
    r: hostile,
    target_modules: [hostile],
    base_model_name_or_path: `${hostile} ${"long ".repeat(100)}`,
  }),
);
writeFileSync(join(folder, "rows.jsonl"), `${JSON.stringify({ [hostile]: 1 })}\n`);

const data = join(folder, "rows.jsonl");
const out = join(folder, "out");
const commands: readonly (readonly string[])[] = [
  ["inspect", folder],
  ["inspect", join(folder, "model.safetensors")],
  ["plan", "--model", folder],
  ["train", "--model", folder, "--data", data, "--out", out, "--device", "cpu"],
  ["eval", "--model", folder, "--data", data, "--device", "cpu"],
  ["generate", "--model", folder, "--prompt", "a", "--device", "cpu"],
  ["merge", "--model", folder, "--adapter", folder, "--out", out],
  ["compare", "--model", folder, "--data", data, "--out", out, "--device", "cpu"],
  ["rank-study", "--model", folder, "--data", data, "--out", out, "--device", "cpu"],
  ["combine", folder, folder, "--out", out],
  ["extract", "--base", folder, "--tuned", folder, "--out", out, "--device", "cpu"],
  ["resize", "--adapter", folder, "--rank", "2", "--out", out],
  [hostile],
];

describe("what files say reaches the terminal as text", () => {
  for (const args of commands) {
    test(`${args[0] === hostile ? "a command's own name" : args.slice(0, 2).join(" ").replace(folder, "FOLDER")}: no control of a file's names`, async () => {
      const { stdout, stderr } = await written(() => runCli(args));
      expect(stdout + stderr).not.toBe("");
      expect(stdout + stderr).not.toMatch(obeyed);
    });
  }

  test("inspect shows the escape and the first 200 characters, and --json has the whole", async () => {
    const shown = await written(() => runCli(["inspect", folder]));
    expect(shown.stdout).toContain("\\x1b[2J\\x1b]52;c;cm0gLXJm\\x07\\x9b31m\\u202eevil\\x0d\\x08\\x7f");
    for (const line of shown.stdout.split("\n")) expect(line.length).toBeLessThan(500);
    const { stdout } = await written(() => runCli(["inspect", folder, "--json"]));
    expect(JSON.parse(stdout)).toMatchObject({ tensors: [{ name: hostile }, { name: hostile }].slice(0, 1) });
  });

  test("generated text goes whole to a pipe, and with its controls escaped to a terminal", async () => {
    const text = `two\nlines\tand ${"x".repeat(300)} ${hostile}`;
    const wasTerminal = process.stdout.isTTY;
    try {
      process.stdout.isTTY = false;
      expect((await written(() => processOutput(false).whole(text))).stdout).toBe(`${text}\n`);
      process.stdout.isTTY = true;
      const { stdout } = await written(() => processOutput(false).whole(text));
      expect(stdout).not.toMatch(obeyed);
      expect(stdout).toContain(`two\nlines\tand ${"x".repeat(300)} \\x1b[2J`);
    } finally {
      process.stdout.isTTY = wasTerminal;
    }
  });

  test("commands below a line stay whole, and their controls are escaped", async () => {
    const [line, command] = [`in ${"x".repeat(300)}. Try:`, `lowrank inspect ${"x".repeat(300)}${hostile}`];
    const { stdout, stderr } = await written(() => {
      processOutput(false).say(line, command, "a \\\n    --b");
      processOutput(false).note(line, command);
    });
    expect(stdout).toBe(`${shownLine(line)}\n  ${printable(command)}\n  a \\\n    --b\n`);
    expect(stderr).toBe(`${shownLine(line)}\n  ${printable(command)}\n`);
  });

  test("a bar that is drawn over itself keeps its own controls and none of a name", async () => {
    const wasTerminal = process.stdout.isTTY;
    try {
      process.stdout.isTTY = true;
      const { stdout } = await written(() => {
        const output = processOutput(false);
        output.draw(`a ${hostile}`);
        output.say("b");
      });
      expect(stdout.replaceAll("\r\u001b[2K", "")).not.toMatch(obeyed);
      expect(stdout).toContain("\r\u001b[2K");
    } finally {
      process.stdout.isTTY = wasTerminal;
    }
  });

  test.each([
    ["a short name stays", shownName("model.layers.0"), "model.layers.0"],
    ["a name is one line", shownName("a\nb\tc"), "a\\nb\\tc"],
    ["a long name is cut", shownName("n".repeat(201)), `${"n".repeat(200)}…`],
    ["a word of a line is cut", shownLine(`there is no ${"n".repeat(300)} here`), `there is no ${"n".repeat(200)}… here`],
    ["a quoted name with spaces is cut", shownLine(`no "${"n ".repeat(300)}" here`), `no "${"n ".repeat(100)}…" here`],
    [
      "a command in a line stays whole, and what is around it is cut",
      shownAround(`${"a".repeat(201)}: lowrank ${"n".repeat(300)}\u001b ${"b".repeat(201)}`, `lowrank ${"n".repeat(300)}\u001b`),
      `${"a".repeat(200)}… lowrank ${"n".repeat(300)}\\x1b ${"b".repeat(200)}…`,
    ],
    ["a text keeps its lines", printable("a\n\tb\u001b"), "a\n\tb\\x1b"],
    [
      "a table is measured as it is shown",
      tableLines([
        ["h", "i"],
        ["\u001b", "x"],
      ]).join("|"),
      "h     i|───────|\\x1b  x",
    ],
  ])("%s", (_, got, wanted) => expect(got).toBe(wanted));
});
