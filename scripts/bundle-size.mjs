// The size of a package in a browser, with and without what checks files: minified, and compressed as servers do.
//
//   node scripts/bundle-size.mjs [models|lora]     after npm run build
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { root } from "./prepare.mjs";

const name = process.argv[2] ?? "models";

/** @param {readonly RegExp[]} external What is left out. */
async function size(external) {
  const result = await build({
    root,
    configFile: false,
    logLevel: "error",
    build: {
      write: false,
      minify: true,
      target: "es2022",
      lib: { entry: join(root, "packages", name, "dist", "index.js"), formats: ["es"], fileName: name },
      rollupOptions: { external: [...external] },
    },
  });
  const code = [result]
    .flat()
    .flatMap((part) => ("output" in part ? part.output : []))
    .map((chunk) => ("code" in chunk ? chunk.code : ""))
    .join("");
  return { minified: code.length, compressed: gzipSync(code, { level: 9 }).length };
}

/** @param {number} bytes */
const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1)} kB`;
const [whole, without] = [await size([]), await size([/^zod/])];
process.stdout.write(
  `@lowrank/${name}: ${kilobytes(whole.minified)} minified, ${kilobytes(whole.compressed)} compressed; zod's share ${kilobytes(whole.minified - without.minified)}, ${kilobytes(whole.compressed - without.compressed)}\n`,
);
