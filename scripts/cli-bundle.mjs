// Puts the command line, the packages of this repository and zod into a few files, apps/cli/bundle: a command then reads three files where it would read
// seven hundred, which is a third of a second of processor time for each. What else it depends on stays outside.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, sep } from "node:path";
import { build } from "vite";
import { root } from "./prepare.mjs";

const cli = join(root, "apps", "cli");
const folder = join(cli, "bundle");
rmSync(folder, { recursive: true, force: true });

/** @param {Readonly<Record<string, string>>} input @param {import("vite").Rolldown.OutputOptions} output */
const bundled = (input, output) =>
  build({
    root: cli,
    configFile: false,
    logLevel: "error",
    ssr: { noExternal: [/^@lowrank\//, "zod"] },
    build: { ssr: true, outDir: folder, emptyOutDir: false, target: "node20", minify: false, rollupOptions: { input, output } },
  });
const results = [
  // The threads that are started are programs of their own.
  await bundled(
    {
      main: join(cli, "dist", "main.js"),
      thread: join(cli, "dist", "cached-thread.js"),
      "linalg-worker": join(root, "packages", "lora", "dist", "linalg", "node", "linalg-worker.js"),
    },
    { entryFileNames: "[name].js", chunkFileNames: "[name]-[hash].js" },
  ),
  // All commands are one script: Node 20 takes compiled code from elsewhere for scripts alone, not for modules.
  await bundled({ program: join(cli, "dist", "thread.js") }, { format: "cjs", entryFileNames: "[name].cjs", codeSplitting: false }),
];
const program = join(folder, "program.cjs");
// As Node wraps what it requires, so that the text is compiled as it is read; and strict, as modules are. A script imports by a function that it is given.
const text = requiredWhenUsed(inAscii(readFileSync(program, "utf8"))).replace(/(?<![.\w$])import(?=\()/g, "importModule");
writeFileSync(program, `(function (exports, require, module, __filename, __dirname, importModule) { "use strict"; ${text}\n})`);

/** The folders of packages that others wrote and that are inside. @type {Set<string>} */
const others = new Set();
for (const part of results.flat())
  for (const chunk of "output" in part ? part.output : [])
    for (const id of "moduleIds" in chunk ? chunk.moduleIds : []) {
      const [before, path] = id.split(`node_modules${sep}`).slice(-2);
      if (path !== undefined) others.add(join(before ?? "", "node_modules", packageName(path)));
    }
const licenses = [...others].sort().map((path) => {
  const { name, version } = JSON.parse(readFileSync(join(path, "package.json"), "utf8"));
  const file = readdirSync(path).find((entry) => /^licen[cs]e/i.test(entry));
  if (file === undefined) throw new Error(`${path} has no license file: leave ${name} outside.`);
  return `${name} ${version}\n\n${readFileSync(join(path, file), "utf8").trim()}\n`;
});
writeFileSync(join(folder, "LICENSES.txt"), licenses.join("\n\n"));
for (const name of ["main.js", "thread.js", "linalg-worker.js", "program.cjs"])
  if (!existsSync(join(folder, name))) throw new Error(`${folder} lacks ${name}.`);

/** @param {string} path */
function packageName(path) {
  const [scope = "", name = ""] = path.split(sep);
  return scope.startsWith("@") ? join(scope, name) : scope;
}

/**
 * A script with escapes for all that is not ASCII, so that a byte is a character, in V8's memory too. An escape means the same wherever such a
 * character may stand, but behind a backslash and in String.raw, whose texts become ordinary ones.
 * @param {string} source
 */
function inAscii(source) {
  const cooked = source.replace(/String\.raw`((?:[^`\\$]|\\[^`$])*)`/g, (raw, text) =>
    /[^\0-\x7f]/.test(text) ? JSON.stringify(text) : raw,
  );
  const unsafe = /\\[^\0-\x7f]|String\.raw`[^`]*[^\0-\x7f][^`]*`/.exec(cooked);
  if (unsafe) throw new Error(`The bundle has ${JSON.stringify(unsafe[0])}, which cannot be said in ASCII: write an ordinary string.`);
  return cooked.replace(/[^\0-\x7f]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * A script that requires what is outside when it is first used, not when the script starts: one file names what all commands need, such as `node:https`.
 * The bundler says each once, at the start of a line, and reads its members where they are used.
 * @param {string} source
 */
function requiredWhenUsed(source) {
  const outside = "$outside";
  if (source.includes(outside)) throw new Error(`The bundle has a ${outside} of its own.`);
  let lazy = `const ${outside} = {};\n${source}`;
  for (const [line, name, required] of source.matchAll(/^let (\w+) = (require\("[^"]+"\));$/gm)) {
    const [before = "", after = ""] = lazy.split(line);
    const uses = after.match(new RegExp(`\\b${name}\\b`, "g")) ?? [];
    const members = new RegExp(`\\b${name}\\.(?=\\w)`, "g");
    if (uses.length !== after.match(members)?.length) throw new Error(`The bundle uses ${name} otherwise than by its members.`);
    const get = `get: () => Object.defineProperty(${outside}, "${name}", { value: ${required} }).${name}`;
    lazy = `${before}Object.defineProperty(${outside}, "${name}", { configurable: true, ${get} });${after.replace(members, () => `${outside}.${name}.`)}`;
  }
  return lazy;
}
