// The archives that the dev dependency @sparticuz/chromium carries: SwiftShader, a headless Chromium, and the libraries that it needs.
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";

const cache = join(fileURLToPath(new URL("..", import.meta.url)), "node_modules", ".cache", "lowrank");
const require = createRequire(import.meta.url);

/**
 * The path of an archive; null where the package is not installed. Its exports do not name the archives, so folders are looked through.
 * @param {string} name
 */
export function chromiumArchive(name) {
  const folders = require.resolve.paths("@sparticuz/chromium") ?? [];
  return folders.map((folder) => join(folder, "@sparticuz", "chromium", "bin", name)).find((path) => existsSync(path)) ?? null;
}

/**
 * Unpacks an archive into the cache, unless it is there. It goes into a folder of its own that is renamed into place, so that two test
 * processes starting together do not see half of it.
 * @param {string} archive  a .tar.br, or a .br of one file, which then has the archive's name
 * @param {string} name  of the folder
 * @param {readonly string[]} [only]  the files to take; all when absent
 * @returns {{ version: string, folder: string }}
 */
export function unpackOnce(archive, name, only) {
  /** @type {string} */
  const version = JSON.parse(readFileSync(join(dirname(archive), "..", "package.json"), "utf8")).version;
  const folder = join(cache, `${name}-${version}`);
  if (existsSync(folder)) return { version, folder };
  mkdirSync(cache, { recursive: true });
  const partial = mkdtempSync(`${folder}-`);
  const bytes = brotliDecompressSync(readFileSync(archive));
  const files = archive.endsWith(".tar.br") ? untar(bytes) : [{ name: basename(archive, ".br"), bytes }];
  for (const file of files) {
    if (only !== undefined && !only.includes(file.name)) continue;
    const path = join(partial, file.name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, file.bytes);
    chmodSync(path, 0o755);
  }
  try {
    renameSync(partial, folder);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    if (!existsSync(folder)) throw error;
  }
  return { version, folder };
}

/**
 * The regular files of a ustar archive (POSIX.1-1988: 512-byte headers; name at 0, octal size at 124, type at 156).
 * @param {Buffer} tar
 */
function* untar(tar) {
  const text = (/** @type {number} */ at, /** @type {number} */ length) => tar.toString("latin1", at, at + length).replace(/\0.*$/s, "");
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const size = Number.parseInt(text(at + 124, 12).trim(), 8);
    const type = text(at + 156, 1);
    if (type === "0" || type === "") yield { name: text(at, 100).replace(/^\.\//, ""), bytes: tar.subarray(at + 512, at + 512 + size) };
    at += 512 + Math.ceil(size / 512) * 512;
  }
}
