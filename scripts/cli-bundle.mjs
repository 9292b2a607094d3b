// Puts the command line, the packages of this repository and zod into a few files, apps/cli/bundle: a command then reads ten files where it would read
// seven hundred, which is a third of a second of processor time for each. What else it depends on stays outside.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, sep } from "node:path";
import { build } from "vite";
import { root } from "./prepare.mjs";

const cli = join(root, "apps", "cli");
const folder = join(cli, "bundle");
rmSync(folder, { recursive: true, force: true });
const result = await build({
  root: cli,
  configFile: false,
  logLevel: "error",
  ssr: { noExternal: [/^@lowrank\//, "zod"] },
  build: {
    ssr: true,
    outDir: folder,
    target: "node20",
    minify: false,
    rollupOptions: {
      // The threads that it starts are programs of their own, beside it.
      input: {
        main: join(cli, "dist", "main.js"),
        thread: join(cli, "dist", "thread.js"),
        "linalg-worker": join(root, "packages", "lora", "dist", "linalg", "node", "linalg-worker.js"),
      },
      output: { entryFileNames: "[name].js", chunkFileNames: "[name]-[hash].js" },
    },
  },
});

/** The folders of packages that others wrote and that are inside. @type {Set<string>} */
const others = new Set();
for (const part of [result].flat())
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
for (const program of ["main.js", "thread.js", "linalg-worker.js"])
  if (!existsSync(join(folder, program))) throw new Error(`${folder} lacks ${program}.`);

/** @param {string} path */
function packageName(path) {
  const [scope = "", name = ""] = path.split(sep);
  return scope.startsWith("@") ? join(scope, name) : scope;
}
